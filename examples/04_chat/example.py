"""Two questions about one picture, which is run once.

python examples/04_chat/example.py [BUNDLE] [PICTURE]
"""

import sys

from luvc.engines import VLM


def main(bundle: str = "demo/bundle", picture: str = "demo/picture.png") -> None:
    """Ask twice."""
    with VLM.load(bundle) as vlm:  # its memory is given back at the end of the block
        chat = vlm.chat(max_new_tokens=16)
        first = chat.ask("What does the green text say?", images=[picture])
        second = chat.ask("What is the colour of the heart?")
    for answer in (first, second):
        print(f"{answer.text} (tokens reused from the caches: {answer.reused_tokens})")
    print(f"{len(chat.messages)} messages so far")


if __name__ == "__main__":
    main(*sys.argv[1:])
