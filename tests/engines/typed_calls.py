"""The public calls with the types that pyright must find; read by test_typing.py, never run."""
# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from typing import assert_type

from luvc.engines import VLM
from luvc.engines.answer import Answer, Stream
from luvc.engines.backends import backend, engine_builder
from luvc.engines.backends.base import Backend, EngineBuilder, SharedRunner
from luvc.engines.chat import Chat
from luvc.engines.serving import Scheduler, Ticket


def generate(vlm: VLM, stream: bool) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]
    assert_type(vlm.generate(messages), Answer)
    assert_type(vlm.generate(messages, stream=True), Stream)
    assert_type(vlm.generate([messages, messages], max_new_tokens=8, stop="."), list[Answer])
    assert_type(vlm.generate(messages, stream=stream, top_p=None), Answer | Stream)
    assert_type(vlm.generate(messages, ratio=2, max_new_tokens=8), Answer)
    vlm.generate(messages, ratios=2)  # pyright: ignore[reportCallIssue]
    vlm.generate([messages], stream=True)  # pyright: ignore[reportCallIssue, reportArgumentType]
    vlm.generate(messages, top_P=0.5)  # pyright: ignore[reportCallIssue]
    vlm.generate("Why?")  # pyright: ignore[reportCallIssue, reportArgumentType]


def ask(vlm: VLM) -> None:
    chat = vlm.chat(temperature=0.5, image_tokens=64)
    assert_type(chat, Chat)
    assert_type(chat.ask("Why?", ["a.jpg", b"..."]), Answer)
    assert_type(chat.ask("Why?", stream=True), Stream)
    chat.ask("Why?", [7])  # pyright: ignore[reportArgumentType]


def serve(vlm: VLM) -> None:
    scheduler = Scheduler(vlm)
    assert_type(scheduler.submit([{"role": "user", "content": "Why?"}], seed=1, ratio=2), Ticket)
    scheduler.submit([], max_tokens=1)  # pyright: ignore[reportCallIssue]


def backends(vlm: VLM) -> None:
    assert_type(backend("auto", vlm.bundle), Backend)
    assert_type(backend("ort").runner(vlm.bundle), SharedRunner)
    builder = engine_builder("tensorrt")
    assert_type(builder, EngineBuilder)
    built = builder.build(vlm.bundle)[1]
    assert_type(built[0].seconds, float | None)
