"""What `--model luvc` refuses, said by the installed lmms-eval: `python refusals.py BUNDLE` prints JSON.

The bundle has a layout for one image; the task's second question is about two.
"""

import json
import sys
from typing import Any

from lmms_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]
from lmms_eval.models import get_model, list_available_models  # pyright: ignore[reportMissingImports]

TASK = "pocketvqa"
GREEDY = {"max_new_tokens": 4, "do_sample": False}


def requests(*contents, settings=GREEDY):
    """Requests of a chat model about documents that are their contents."""
    docs = [[{"role": "user", "content": content}] for content in contents]
    found = [
        Instance(
            request_type="generate_until",
            arguments=("", lambda doc: doc, settings, n, TASK, "test"),
            idx=0,
            metadata={"task": TASK, "doc_id": n, "repeats": 1},
        )
        for n in range(len(docs))
    ]
    return docs, found


def main(bundle: str, picture: str) -> None:
    """Print what was refused, by name."""
    said: dict[str, Any] = {"listed": "luvc" in list_available_models()}
    model_class = get_model("luvc")

    def refused(name, function, *arguments):
        try:
            function(*arguments)
            said[name] = "was not refused"
        except ValueError as e:
            said[name] = f"{type(e).__name__}: {e}"

    args = f"bundle={bundle},backend=ort,threads=1"
    for name, more in {"device": {"device": "cpu"}, "batch_size": {"batch_size": "auto"}}.items():
        refused(name, model_class.create_from_arg_string, args, more)
    refused("bundle", model_class.create_from_arg_string, f"bundle={bundle}/nothing")
    model = model_class.create_from_arg_string(args, {"batch_size": 2})
    image, text = {"type": "image", "url": picture}, {"type": "text", "text": "Why?"}

    def asked(*contents, settings=GREEDY):
        docs, found = requests(*contents, settings=settings)
        model.task_dict = {TASK: {"test": docs}}
        return model.generate_until(found)

    refused("images", asked, [image, text], [image, image, text])
    refused("video", asked, [image, text], [{"type": "video", "url": "a.mp4"}, text])
    refused("beams", lambda: asked([image, text], settings=GREEDY | {"num_beams": 3}))
    for kind in ("loglikelihood", "generate_until_multi_round", "generate_visual_cot"):
        refused(kind, getattr(model, kind), requests([text])[1])
    drawn = GREEDY | {"temperature": 5.0, "do_sample": True, "max_new_tokens": 12}
    said["drawn"] = [r.text for r in asked(*3 * [[image, text]], settings=drawn)]
    model.clean()
    refused("closed", asked, [image, text])
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
