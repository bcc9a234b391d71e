"""The application: routes, what guards them, and how answers are sent."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ...engines.prompt.layouts import most_images
from ...engines.serving import Busy, Cancelled, Scheduler
from ...engines.serving.ticket import Ticket
from ...errors import LuvcError
from ..client_messages import place_pictures
from .bodies import may_ask, read_body
from .chat_request import BadRequest, ChatRequest, read_request
from .metrics import Metrics
from .remote_pictures import RemotePictures
from .replies import DONE, Reply, event, failure
from .settings import Settings
from .tickets import Awaited, forget_frames

LOG = logging.getLogger(__name__)
CLOSED = 499
"""Status that is counted for a client that went away (nginx's number)."""


class Service:
    """Answers HTTP requests with one scheduler.

    Args:
        scheduler: closed by its owner, after the server.
        settings: see there.
    """

    def __init__(self, scheduler: Scheduler, settings: Settings):
        self.scheduler = scheduler
        self.settings = settings
        self.metrics = Metrics(scheduler, scheduler.vlm.manifest)
        self._images = most_images(scheduler.vlm.manifest)
        self._fetch = RemotePictures(settings.image_hosts, settings.bounds.image_mib)
        scheduler.vlm.processor.megapixels = settings.bounds.megapixels

    def _spell(self, token_id: int) -> str:
        """A token's text inside an answer: decoded alone some lose the blank before them."""
        decode = self.scheduler.vlm.processor.tokenizer.decode
        return decode([token_id, token_id])[len(decode([token_id])) :]

    # ---- routes
    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        try:
            body = await read_body(request, self.settings)
            asked = await asyncio.to_thread(read_request, body, self.settings.name)
            awaited = Awaited()
            await awaited.begin(partial(self._submit, asked))
            if asked.stream:
                return await self._streamed(request, asked, awaited)
            return await self._whole(request, asked, awaited)
        except ClientDisconnect:
            self.metrics.ended(CLOSED)
            return Response(status_code=400)
        except Exception as e:
            return self._refused(e)

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        model = {"id": self.settings.name, "object": "model", "created": 0, "owned_by": "luvc"}
        return JSONResponse({"object": "list", "data": [model]})

    async def health(self, request: Request) -> Response:
        """GET /health."""
        return JSONResponse({"status": "ok"})

    async def shown(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    # ---- the work
    def _submit(self, asked: ChatRequest, notify: Callable[[Ticket], None]) -> Ticket:
        fetch = self._fetch if self.settings.image_hosts else None
        turns = place_pictures(asked.messages, self.settings.bounds, self._images, fetch=fetch)
        return self.scheduler.submit(turns, notify=notify, **asked.options)

    async def _whole(self, request: Request, asked: ChatRequest, awaited: Awaited) -> Response:
        answering = asyncio.ensure_future(awaited.answer())
        leaving = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise ClientDisconnect
            answer = answering.result()
        finally:
            for task in (answering, leaving):
                task.cancel()
            awaited.cancel()
        self.metrics.answered(answer)
        self.metrics.ended(200)
        return JSONResponse(
            Reply(self.settings.name, self._spell).whole(answer, bool(asked.logprobs))
        )

    async def _streamed(self, request: Request, asked: ChatRequest, awaited: Awaited) -> Response:
        """A stream, begun when the first text is there: what cannot be met is a status, not an event."""
        pieces = awaited.pieces()
        try:
            first = await anext(pieces, "")
        except BaseException:
            awaited.cancel()
            raise
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        events = self._events(awaited, first, pieces, usage)
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def _events(
        self, awaited: Awaited, first: str, pieces: AsyncIterator[str], usage: bool
    ) -> AsyncIterator[bytes]:
        reply, status = Reply(self.settings.name, self._spell), CLOSED
        try:
            yield reply.begun()
            yield reply.piece(first)
            async for text in pieces:
                yield reply.piece(text)
            answer = await awaited.answer()
            self.metrics.answered(answer)
            status = 200
            yield reply.ended(answer)
            if usage:
                yield reply.counted(answer)
            yield DONE
        except Exception as e:  # the status was sent: the error is the stream's last event
            status, body = self._failure(e)
            yield event(body)
        finally:
            awaited.cancel()
            self.metrics.ended(status)

    def _refused(self, error: Exception) -> Response:
        status, body = self._failure(error)
        self.metrics.ended(status)
        retry = {"Retry-After": "1"} if status in (429, 503) else {}
        return JSONResponse(body, status, headers=retry)

    def _failure(self, error: Exception) -> tuple[int, dict[str, Any]]:
        """An error's status and body; what it was about is let go."""
        try:
            return self._said(error)
        finally:
            forget_frames(error)

    def _said(self, error: Exception) -> tuple[int, dict[str, Any]]:
        if isinstance(error, BadRequest):
            return error.status, failure(str(error), error.status, error.param, error.code)
        if isinstance(error, Busy):
            return 429, failure(str(error), 429, code="rate_limit_exceeded")
        if isinstance(error, Cancelled):
            return CLOSED, failure(str(error), CLOSED)
        if isinstance(error, LuvcError):
            return 400, failure(str(error), 400)
        # a bug: the trace is for the server's log, not for its client
        LOG.error("a request failed", exc_info=error)
        return 500, failure(f"internal error: {type(error).__name__}", 500)


async def _gone(request: Request) -> None:
    """Until the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def application(service: Service) -> Starlette:
    """The application of a service."""
    guarded = partial(_guarded, service.settings.api_key)
    routes = [
        Route("/v1/chat/completions", guarded(service.chat), methods=["POST"]),
        Route("/v1/models", guarded(service.models)),
        Route("/health", service.health),
        Route("/metrics", service.shown),
    ]
    origins = list(service.settings.origins)
    cors = Middleware(
        CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"]
    )
    return Starlette(
        routes=routes,
        middleware=[cors] if origins else [],
        exception_handlers={HTTPException: _http_error},
    )


def _guarded(key: str | None, route: Callable) -> Callable:
    """A route that asks for the key."""

    async def checked(request: Request) -> Response:
        if not may_ask(request, key):
            body = failure(
                "send the API key: Authorization: Bearer ...", 401, code="invalid_api_key"
            )
            return JSONResponse(body, 401, headers={"WWW-Authenticate": "Bearer"})
        return await route(request)

    return checked


async def _http_error(request: Request, error: Exception) -> Response:
    """Unknown addresses and methods, in OpenAI's form too."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    status = error.status_code
    return JSONResponse(failure(message, status), status, headers=dict(error.headers or {}))
