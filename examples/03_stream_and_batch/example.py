"""One answer, an answer as it is made, and a batch.

python examples/03_stream_and_batch/example.py [BUNDLE] [PICTURE] [PICTURE]
"""

import sys

from luvc.engines import VLM


def question(picture: str, text: str) -> list[dict]:
    """A conversation of one turn."""
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]


def main(
    bundle: str = "demo/bundle", picture: str = "demo/picture.png", photo: str = "demo/photo.png"
) -> None:
    """Ask about two pictures."""
    with VLM.load(bundle) as vlm:  # its memory is given back at the end of the block
        ask(vlm, picture, photo)


def ask(vlm: VLM, picture: str, photo: str) -> None:
    """Ask alone, streamed, and as a batch."""
    answer = vlm.generate(question(picture, "What does the green text say?"), max_new_tokens=16)
    print(f"answer: {answer.text} ({answer.finish_reason})")
    print(f"{answer.visual_tokens} visual tokens, left from a layer on: {answer.stages}")

    print("stream: ", end="")
    for piece in vlm.generate(question(photo, "What does the photo show?"), stream=True):
        print(piece, end="", flush=True)
    print()

    batch = [
        question(picture, "What does the green text say?"),
        question(photo, "What does the photo show?"),
    ]
    for answer in vlm.generate(batch, max_new_tokens=16):
        print(f"batch: {answer.text}")


if __name__ == "__main__":
    main(*sys.argv[1:])
