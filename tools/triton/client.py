"""Ask a served model about a picture; the answer is streamed to the terminal as it comes.

    pip install 'tritonclient[grpc]'
    python tools/triton/client.py photo.png "What is in the picture?" --server localhost:8001

One file of its own, which needs nothing of this project. With --session a later call without a picture
goes on with the conversation. docs/triton.md has the same as a line of curl.
"""

import argparse
import sys
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import tritonclient.grpc as grpc

TYPES = {
    "text_input": ("BYTES", object),
    "image": ("BYTES", object),
    "session": ("BYTES", object),
    "layout": ("BYTES", object),
    "stop": ("BYTES", object),
    "stream": ("BOOL", bool),
    "max_tokens": ("INT32", np.int32),
    "temperature": ("FP32", np.float32),
    "top_p": ("FP32", np.float32),
    "top_k": ("INT32", np.int32),
    "repetition_penalty": ("FP32", np.float32),
    "seed": ("INT64", np.int64),
    "ratio": ("FP32", np.float32),
    "image_tokens": ("INT32", np.int32),
}


def tensors(fields: dict[str, Any]) -> list[Any]:
    """Triton's inputs for the fields of a request; None is left out."""
    found = []
    for name, value in fields.items():
        if value is not None:
            kind, dtype = TYPES[name]
            array = np.array(value if isinstance(value, list) else [value], dtype)
            found.append(grpc.InferInput(name, list(array.shape), kind))
            found[-1].set_data_from_numpy(array)
    return found


def ask(server: str, fields: dict[str, Any]) -> Any:
    """Print the answer as it comes -> its last response, which has the counts and times."""
    results: Queue = Queue()
    with grpc.InferenceServerClient(server) as client:
        client.start_stream(callback=lambda result, error: results.put((result, error)))
        try:
            client.async_stream_infer("luvc_vlm", tensors(fields), enable_empty_final_response=True)
            while True:
                result, error = results.get()
                if error is not None:
                    sys.exit(f"error: {error.message()}")
                text = result.as_numpy("text_output")
                if text is not None:
                    sys.stdout.write(text.item().decode())
                    sys.stdout.flush()
                if result.get_response().parameters["triton_final_response"].bool_param:
                    return result
        finally:  # also on Ctrl-C: the server stops within a step
            client.stop_stream(cancel_requests=True)


def readable(value: Any) -> str:
    """Text as text, milliseconds to a tenth."""
    if isinstance(value, bytes):
        return value.decode()
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Ask a served model about a picture.")
    parser.add_argument("image", type=Path, nargs="*", help="PNG or JPEG files")
    parser.add_argument("question")
    parser.add_argument("--server", default="localhost:8001", help="host and gRPC port")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--repetition-penalty", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--stop", action="append", help="text that ends the answer")
    parser.add_argument("--layout", help="name of one of the bundle's layouts")
    parser.add_argument("--ratio", type=float, help="of the compression, such as 2")
    parser.add_argument(
        "--image-tokens", type=int, help="most visual tokens of a picture in a layer"
    )
    parser.add_argument("--session", help="key of a conversation that is kept")
    parser.add_argument("--verbose", "-v", action="store_true", help="print counts and times")
    given = vars(parser.parse_args())
    server, verbose, question = (given.pop(n) for n in ("server", "verbose", "question"))
    given["image"] = [path.read_bytes() for path in given["image"]] or None
    last = ask(server, given | {"text_input": question, "stream": True})
    sys.stdout.write("\n")
    if verbose:
        names = (o.name for o in last.get_response().outputs if o.name != "text_output")
        values = {name: last.as_numpy(name).item() for name in names}
        told = [f"{n} {readable(v)}" for n, v in values.items() if v != b""]
        sys.stderr.write(", ".join(told) + "\n")


if __name__ == "__main__":
    main()
