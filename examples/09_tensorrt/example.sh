#!/usr/bin/env bash
# Build TensorRT-RTX engines into a bundle in half precision, which is exported first where there is none.
set -euo pipefail
bundle=${1:-demo/bundle-fp16}

if [ ! -e "$bundle" ]; then
    luvc-export --model tools/pocket/model --ratio 2x --text-tokens 24 --dtype fp16 \
        --output "$bundle"
fi
luvc-build "$bundle" --backend tensorrt-rtx --batch 1,1,4 --target sm89
luvc-info "$bundle"
