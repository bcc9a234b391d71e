#!/usr/bin/env bash
# Serve a bundle on the CPU, ask it about a picture over HTTP and over gRPC, and stop it:
#     bash tools/triton/demo.sh BUNDLE PICTURE        (make demo-triton does all before)
set -euo pipefail
bundle=$1 picture=$2
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
port=${PORT:-8000}
trap 'test -f "$work/pid" && kill "$(cat "$work/pid")"; wait; rm -rf "$work"' EXIT

luvc-triton "$bundle" --output "$work/repository"
luvc-serve "$work/repository" --cpu --port "$port" --log "$work/log" --pid-file "$work/pid" &
launcher=$!
until curl --silent --fail --max-time 2 --output /dev/null "localhost:$port/v2/health/ready"; do
    kill -0 "$launcher" || exit 1
    sleep 0.2
done

echo "--- curl"
printf '{"text_input": "What does the photo show?", "max_tokens": 24, "image": "%s"}' "$(base64 -w0 "$picture")" |
    curl --silent --show-error --fail-with-body "localhost:$port/v2/models/luvc_vlm/generate" --data @-
echo
echo "--- tools/triton/client.py, streamed over gRPC"
python "$here/client.py" "$picture" "What does the photo show?" --server "localhost:$((port + 1))" --max-tokens 24 --verbose

echo "--- stop"
kill "$(cat "$work/pid")"
wait "$launcher"
echo "stopped"
