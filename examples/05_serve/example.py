"""Requests from several threads, a streamed answer, a kept conversation.

python examples/05_serve/example.py [BUNDLE] [PICTURE] [PICTURE]
"""

import sys
from concurrent.futures import ThreadPoolExecutor

from luvc.engines import VLM
from luvc.engines.serving import Limits, Scheduler


def question(text: str, *pictures: str) -> list[dict]:
    """A turn of a conversation."""
    parts = [{"type": "image", "image": picture} for picture in pictures]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def main(
    bundle: str = "demo/bundle", picture: str = "demo/picture.png", photo: str = "demo/photo.png"
) -> None:
    """Serve a few requests and stop."""
    requests = [
        question("What does the green text say?", picture),
        question("What is the colour of the heart?", picture),
        question("What does the photo show?", photo),
    ]
    limits = Limits(rows=4, waiting=16)  # four answers at once; more than 16 waiting are refused
    with VLM.load(bundle) as vlm, Scheduler(vlm, limits) as scheduler:

        def client(messages: list[dict]) -> str:
            return scheduler.submit(messages, max_new_tokens=16).answer.text

        with ThreadPoolExecutor() as threads:
            for text in threads.map(client, requests):
                print(f"client: {text}")

        ticket = scheduler.submit(requests[0], conversation="me", max_new_tokens=16)
        print("stream: ", end="")
        for piece in ticket:  # ticket.cancel() would end it before its next token
            print(piece, end="", flush=True)
        print()

        later = scheduler.submit(question("What is the colour of the heart?"), conversation="me")
        print(f"later: {later.answer.text} ({later.answer.reused_tokens} tokens reused)")


if __name__ == "__main__":
    main(*sys.argv[1:])
