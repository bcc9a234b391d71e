#!/usr/bin/env bash
# Serve a bundle by OpenAI's API, ask it with curl and with OpenAI's own client, stop it.
# PORT chooses another port.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
bundle="${1:-demo/bundle}"
picture="${2:-demo/picture.png}"
port="${PORT:-8000}"

luvc-serve "$bundle" --port "$port" --served-model-name pocket --api-key secret &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
for _ in $(seq 600); do
    curl -sf "http://127.0.0.1:$port/health" >/dev/null && break
    kill -0 "$server" # it has not ended
    sleep 0.1
done

curl -sS "http://127.0.0.1:$port/v1/chat/completions" -H "Authorization: Bearer secret" -d @- <<END
{"model": "pocket", "max_tokens": 24, "messages": [{"role": "user", "content": [
  {"type": "image_url", "image_url": {"url": "data:image/png;base64,$(base64 <"$picture" | tr -d '\n')"}},
  {"type": "text", "text": "What does the green text say?"}]}]}
END
echo
python "$here/ask.py" "http://127.0.0.1:$port/v1" "$picture"
kill "$server"
wait "$server"
echo "stopped with code $?"
