#!/bin/sh
# Train the pocket VLM on one CUDA GPU from a bare checkout, in ten minutes or less.
#
#   sh tools/pocket/train_gpu.sh OUTPUT [MINUTES] [OPTIONS of luvc.tools.pocket.train]
#
# Leaves in OUTPUT: pocket.tar (the checkpoint), results.json, log.jsonl, loss.png, config.json.
set -eu
output=$1
minutes=${2:-7.5}
[ $# -lt 2 ] && shift 1 || shift 2
python=${PYTHON:-python3}
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
work=$(mktemp -d)
mkdir -p "$output"
# The checkout is the package: a link gives it its name without an installation.
ln -s "$root" "$work/luvc"
PYTHONPATH="$work${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
"$python" -m luvc.tools.pocket.train \
    --output "$work/run" --device cuda --minutes "$minutes" "$@" 2>&1 | tee "$output/train.txt"
tar -C "$work/run/model" -cf "$output/pocket.tar" .
for name in results.json log.jsonl loss.png config.json; do
    [ ! -f "$work/run/$name" ] || cp "$work/run/$name" "$output/"
done
