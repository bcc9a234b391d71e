"""Wrong requests get a clear error from a real server."""

import numpy as np
import pytest

from .real_server import ON_SERVER, grpc_stream

pytestmark = ON_SERVER


BAD = {
    "missing input beside an optional one": (
        {"max_tokens": 4},
        "send either text_input or messages",
    ),
    "broken image": ({"text_input": "Why?", "image": b"PNG?"}, "no known format"),
    "truncated image": ({"text_input": "Why?", "image": "half"}, "cannot be read"),
    "100 MB image": ({"text_input": "Why?", "image": "large"}, "the limit is 16 MiB"),
    "prompt too long": ({"text_input": "why " * 300, "image": "good"}, "the bundle holds 96"),
    "top_p": ({"text_input": "Why?", "image": "good", "top_p": 7.0}, "top_p"),
    "a server's file": (
        {"messages": '[{"role": "user", "content": [{"type": "image", "image": "/etc/hosts"}]}]'},
        "no known format",
    ),
    "a server's folder": (
        {"messages": '[{"role": "user", "content": [{"type": "video", "video": "/etc"}]}]'},
        "is of type 'text', 'image' or 'image_url'",
    ),
    "layout": (
        {"text_input": "Why?", "image": "good", "layout": "9x9"},
        "there is no layout '9x9' in this bundle",
    ),
    "messages": ({"messages": "{", "image": "good"}, "not valid JSON"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_requests_get_a_clear_error(client, image, case):
    fields, message = BAD[case]
    data = {"half": image[: len(image) // 2], "good": image, "large": b"\x89PNG" + bytes(100 << 20)}
    source = fields.get("image")
    source = data.get(source, source) if source is not None else None
    answer = client.generate(source, **{k: v for k, v in fields.items() if k != "image"})
    assert answer["status"] == 400 and message in answer["error"], answer
    assert len(answer["error"]) < 400
    client.alive(image)


def test_wrong_shapes_and_types_get_a_clear_error(server, client, image):
    import tritonclient.grpc as grpc

    cases = [
        ([2], np.array([b"a", b"b"], object), "BYTES", "unexpected shape for input 'text_input'"),
        ([1], np.array([3], np.int32), "INT32", "data-type is 'INT32'"),
    ]
    for shape, array, kind, message in cases:
        with grpc_stream(server.ports) as (_, results, stream):
            tensor = grpc.InferInput("text_input", shape, kind)
            tensor.set_data_from_numpy(array)
            stream.async_stream_infer("luvc_vlm", [tensor])
            _, error = results.get(timeout=30)
            assert message in str(error)
    client.alive(image)
