#!/usr/bin/env bash
# Plan two ratios, export one, look at the bundle.
set -euo pipefail
checkpoint=${1:-tools/pocket/model}
bundle=${2:-demo/bundle}

luvc-plan --model "$checkpoint" --ratio 2x --ratio 3x --text-tokens 24
luvc-export --model "$checkpoint" --ratio 2x --text-tokens 24 --output "$bundle"
luvc-info "$bundle" --verify
