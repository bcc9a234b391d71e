"""The application of luvc-serve in several replicas, on one machine or on many, under Ray Serve.

    serve run luvc.tools.serve.replicas:application bundle=/models/bundle replicas=4

An ingress reads each request and hands it to the replica that had its picture last: that one has run the
prompt up to the picture already. Ray Serve knows which by its model multiplexing, with pictures in the place
of models (https://docs.ray.io/en/latest/serve/model-multiplexing.html).
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.exceptions import RayError
from ray.serve import Application
from ray.serve.exceptions import BackPressureError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ...engines import VLM, Bundle
from ...engines.backends import backend
from ...engines.serving import Limits, Scheduler
from ..client_messages import Bounds
from .app import Service
from .app import application as served_by
from .bodies import may_ask, picture_key, read_body
from .chat_request import BadRequest
from .heap import give_large_blocks_back
from .replies import failure
from .settings import Settings

PICTURES = 256
"""Of a replica, that requests are sent back to it for."""
PLAIN = (
    "type",
    "asgi",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "headers",
)
"""What of an ASGI scope goes to another process."""


class Arguments(BaseModel):
    """What `serve run` takes as NAME=VALUE; names and defaults are those of luvc-serve's options.

    Attributes:
        bundle: folder, the same on every machine.
        replicas: that answer, each with the bundle's weights of its own.
        api_key: default LUVC_API_KEY where the application is built.
        threads: of a replica, which asks Ray for as many CPUs.
        gpus: of a replica.
    """

    model_config = ConfigDict(extra="forbid")

    bundle: str
    replicas: int = Field(2, ge=1)
    served_model_name: str | None = None
    api_key: str | None = Field(default_factory=lambda: os.environ.get("LUVC_API_KEY"))
    origins: tuple[str, ...] = ()
    image_hosts: tuple[str, ...] = ()
    rows: int = 8
    prefill: int = 4
    waiting: int = 128
    prefix_cache: int = Limits.prefix_mib
    image_mib: int = Field(16, ge=1)
    megapixels: int = Field(50, ge=1)
    body_mib: int = Field(64, ge=1)
    backend: str = "auto"
    threads: int = Field(1, ge=1)
    gpus: float = Field(0, ge=0)

    @property
    def limits(self) -> Limits:
        """Of every replica's scheduler.

        Raises:
            LuvcError: a number below the least.
        """
        return Limits(
            rows=self.rows,
            prefill=self.prefill,
            waiting=self.waiting,
            prefix_mib=self.prefix_cache,
        )

    @property
    def settings(self) -> Settings:
        """Of every replica and of the ingress."""
        return Settings(
            name=self.served_model_name or Path(self.bundle).resolve().name,
            api_key=self.api_key,
            origins=self.origins,
            bounds=Bounds(image_mib=self.image_mib, megapixels=self.megapixels),
            image_hosts=self.image_hosts,
            body_mib=self.body_mib,
        )


@serve.deployment
class Replica:
    """A bundle with its scheduler and the application around it.

    Args:
        arguments: see there.
    """

    def __init__(self, arguments: Arguments):
        give_large_blocks_back()
        self._vlm = VLM.load(arguments.bundle, backend=arguments.backend, threads=arguments.threads)
        self._scheduler = Scheduler(self._vlm, arguments.limits)
        self._app = served_by(Service(self._scheduler, arguments.settings))

    @serve.multiplexed(max_num_models_per_replica=PICTURES)
    async def _picture(self, key: str) -> str:
        """What the router then knows this replica by; the prefix cache itself keeps what it can."""
        return key

    async def answer(self, scope: dict[str, Any], body: bytes) -> AsyncIterator[dict[str, Any]]:
        """The application's messages for one request.

        Args:
            scope: of ASGI, as far as it can be sent.
            body: of the request.
        """
        if key := serve.get_multiplexed_model_id():
            seen: Any = self._picture  # what the decorator makes of it says no types
            await seen(key)
        unread = [{"type": "http.request", "body": body, "more_body": False}]
        said: asyncio.Queue[Any] = asyncio.Queue()

        async def receive() -> Any:
            return unread.pop() if unread else await asyncio.Event().wait()  # or this is cancelled

        async def run() -> None:
            try:
                await self._app(scope, receive, said.put)
            finally:
                said.put_nowait(None)

        running = asyncio.create_task(run())
        try:
            while (message := await said.get()) is not None:
                yield message
            await running
        finally:
            running.cancel()

    async def __del__(self) -> None:
        """Ray Serve's own way to end a replica."""
        self._scheduler.close()
        self._vlm.close()


def _later(message: str, status: int, code: str | None = None) -> Response:
    body = failure(message, status, code=code)
    return JSONResponse(body, status, headers={"Retry-After": "1"})


async def _bodies(messages: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    async for message in messages:
        yield message.get("body", b"")


@serve.deployment
class Ingress:
    """Reads requests, and sends each to a replica.

    Args:
        replicas: the handle of their deployment.
        settings: of them.
    """

    def __init__(self, replicas: Any, settings: Settings):
        self._replicas = replicas
        self._settings = settings

    async def __call__(self, request: Request) -> Response:
        """Any request: what is wrong with it a replica says."""
        if request.url.path == "/metrics":
            message = "replicas count for themselves: Ray's metrics have requests, errors and times of all"
            return JSONResponse(failure(message, 404), 404)
        try:
            # a replica refuses who may not ask, before anything is read
            allowed = may_ask(request, self._settings.api_key)
            body = await read_body(request, self._settings) if allowed else b""
        except ClientDisconnect:
            return Response(status_code=400)
        except BadRequest as e:
            return JSONResponse(failure(str(e), e.status), e.status)
        key = await asyncio.to_thread(picture_key, body)
        replicas = self._replicas.options(stream=True, multiplexed_model_id=key)
        try:
            messages = replicas.answer.remote({n: request.scope[n] for n in PLAIN}, body)
            start = await anext(messages)
        except BackPressureError:
            return _later("all replicas are full; try again later", 429, "rate_limit_exceeded")
        except RayError as e:
            return _later(f"the replica has ended ({type(e).__name__}); send it again", 503)
        response = StreamingResponse(_bodies(messages), start["status"])
        response.raw_headers = list(start["headers"])
        return response


def application(arguments: Arguments) -> Application:
    """What `serve run` runs.

    Raises:
        LuvcError: not a bundle, or an option that no replica could begin with.
    """
    backend(arguments.backend, Bundle.load(arguments.bundle))
    _ = arguments.limits  # refuses what no scheduler takes
    options = {"num_cpus": arguments.threads, "num_gpus": arguments.gpus}
    most = arguments.rows + arguments.waiting
    # one more than a scheduler takes reaches it, and is told that it is full
    replicas = Replica.options(
        num_replicas=arguments.replicas,
        ray_actor_options=options,
        max_ongoing_requests=most + 1,
        max_queued_requests=arguments.waiting,
    ).bind(arguments)
    return Ingress.options(
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=(most + 1) * arguments.replicas + arguments.waiting,
        max_queued_requests=arguments.waiting,
    ).bind(replicas, arguments.settings)
