#!/usr/bin/env bash
# Ask a bundle and Hugging Face's unmodified model the same questions and compare the answers.
set -euo pipefail
bundle=${1:-demo/bundle}
questions=${2:-demo/questions.jsonl}
results=$(dirname "$questions")

if [ ! -e "$questions" ]; then
    cat >"$questions" <<'END'
{"image": "picture.png", "question": "What is the colour of the heart?", "answer": "black"}
{"image": "photo.png", "question": "What does the photo show?", "answer": "coffee"}
END
fi

luvc-eval "$bundle" --data "$questions" --backend hf --output "$results/hf.json"
luvc-eval "$bundle" --data "$questions" --compare "$results/hf.json" --min-agreement 0
