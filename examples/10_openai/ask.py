"""Ask a server with OpenAI's own client, and read the answer as it comes."""

import base64
import sys
from pathlib import Path

from openai import OpenAI

address, picture = sys.argv[1:]
url = "data:image/png;base64," + base64.b64encode(Path(picture).read_bytes()).decode()
with OpenAI(base_url=address, api_key="secret") as client:
    stream = client.chat.completions.create(
        model="pocket",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": url}},
                    {"type": "text", "text": "What is the colour of the heart?"},
                ],
            }
        ],
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
        if chunk.usage:
            details = chunk.usage.model_dump()["prompt_tokens_details"]
            print(
                f"\n{chunk.usage.prompt_tokens} tokens in, {details['visual_tokens']} of them visual"
            )
