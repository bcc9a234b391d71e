#!/bin/sh
# Train the pocket VLM on one CUDA GPU from a bare checkout, in one command or in several.
#
#   sh benchmarks/training/train_gpu.sh RUN [OPTIONS of benchmarks.training.train]
#
# RUN is the run's folder: the same command takes a stopped run up again. After every command RUN holds
# model/ (the checkpoint as last validated), pocket.tar (the same, packed), log.jsonl and state.pt; a
# finished run has results.json and loss.png too. A run of 19 minutes in commands of at most 9:
#
#   sh benchmarks/training/train_gpu.sh out/pocket --minutes 19 --stop-after 9     (as often as needed)
#
# Where state.pt cannot be kept, its weights can: --start model/ begins a new run with them.
set -eu
run=$1
shift
python=${PYTHON:-python3}
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
work=$(mktemp -d)
mkdir -p "$run"
# The checkout is the package: a link gives it its name without an installation. benchmarks/ is beside it.
ln -s "$root" "$work/luvc"
PYTHONPATH="$work:$root${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
"$python" -m benchmarks.training.train --output "$run" --device cuda "$@"
rm -r "$work"
[ ! -d "$run/model" ] || tar -C "$run/model" -cf "$run/pocket.tar" .
