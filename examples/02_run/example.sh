#!/usr/bin/env bash
# Ask about a picture and draw which visual tokens each stage keeps.
set -euo pipefail
bundle=${1:-demo/bundle}
picture=${2:-demo/picture.png}
drawing=${3:-demo/tokens.png}

luvc-run "$bundle" --image "$picture" "What does the green text say?" \
    --verbose --show-tokens "$drawing"
