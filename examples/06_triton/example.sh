#!/usr/bin/env bash
# Serve a bundle on the CPU, ask it over HTTP, stop it.
# PORT is HTTP's (the next two are gRPC's and the metrics'); SERVER a folder of install.sh or a tritonserver.
set -euo pipefail
bundle=${1:-demo/bundle}
picture=${2:-demo/picture.png}
repository=${3:-demo/repository}
port=${PORT:-8000}

luvc-triton "$bundle" --output "$repository"
luvc-serve "$repository" --cpu --port "$port" ${SERVER:+--server "$SERVER"} &
server=$!
trap 'kill "$server"; wait "$server"' EXIT
until curl --silent --fail --max-time 2 --output /dev/null "localhost:$port/v2/health/ready"; do
    kill -0 "$server" # it has ended: so does this
    sleep 0.5
done

printf '{"text_input": "What does the green text say?", "image": "%s"}' "$(base64 -w0 "$picture")" |
    curl --silent --show-error --fail-with-body "localhost:$port/v2/models/luvc_vlm/generate" --data @-
echo
