"""The body of /v1/chat/completions, read strictly: what would be passed over in silence is refused.

Names and meaning are OpenAI's (https://platform.openai.com/docs/api-reference/chat/create); `top_k`,
`repetition_penalty`, `ratio`, `image_tokens` and `layout` are ours, as clients' `extra_body` sends them.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ... import strict_json
from ...engines.prompt.wishes import RequestOptions
from ...engines.sampling import LIKELIEST
from ...errors import LuvcError, brief, printable

LEFT_OUT = {
    "n": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": {},
    "tools": [],
    "tool_choice": "none",
    "functions": [],
    "modalities": ["text"],
    "response_format": {"type": "text"},
}
"""Parameters that would change the answer and are not there, with the value that changes nothing."""
UNREAD = {"user", "metadata", "store", "safety_identifier", "service_tier", "parallel_tool_calls"}
"""Parameters of the account that asks, which no answer depends on."""


class BadRequest(LuvcError):
    """A body that cannot be met.

    Args:
        message: what is wrong, and the mend.
        param: the parameter that it is about.
        status: of HTTP.
        code: OpenAI's word for it, where there is one.
    """

    def __init__(
        self, message: str, param: str | None = None, status: int = 400, code: str | None = None
    ):
        super().__init__(message)
        self.param = param
        self.status = status
        self.code = code


class StreamOptions(BaseModel):
    """What a stream says beside the text."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class ChatRequest(BaseModel):
    """The parameters that are read.

    Attributes:
        model: the name the server has.
        messages: the conversation; its pictures are opened later.
        max_tokens: longest answer; `max_completion_tokens` is its newer name.
        stop: texts that end the answer.
        stream: send pieces as they come.
        stream_options: what else a stream says.
        temperature: 0 is greedy; without it the bundle's generation config decides.
        top_p: see `Sampling`.
        top_k: see `Sampling`.
        repetition_penalty: see `Sampling`.
        seed: of the sampling.
        logprobs: tell the log-probability of each token; of whole answers alone.
        top_logprobs: and of so many of the likeliest in its place.
        ratio: of the pictures' compression; the nearest of the bundle is taken.
        image_tokens: most visual tokens of a picture in a language layer.
        layout: name of a layout of the bundle; it goes with neither of these.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    messages: list[dict[str, Any]]
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=LIKELIEST)] = None
    ratio: float | None = None
    image_tokens: int | None = None
    layout: str | None = None

    @field_validator("stream", mode="before")
    @classmethod
    def _null_is_false(cls, value: Any) -> Any:
        return False if value is None else value

    @property
    def options(self) -> RequestOptions:
        """As `Scheduler.submit` takes them."""
        return {
            "max_new_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "repetition_penalty": self.repetition_penalty,
            "stop": self.stop,
            "seed": self.seed,
            "logprobs": (self.top_logprobs or 0) if self.logprobs else None,
            "ratio": self.ratio,
            "image_tokens": self.image_tokens,
            "layout": self.layout,
        }


def read_request(body: bytes, served: str) -> ChatRequest:
    """A request's parameters.

    Args:
        body: JSON.
        served: the model's name.

    Raises:
        BadRequest: says which parameter, and the mend.
    """
    try:
        data = strict_json.parse(body)
    except ValueError as e:
        raise BadRequest(f"the body is not valid JSON: {brief(e)}") from e
    if not isinstance(data, dict):
        raise BadRequest("the body must be a JSON object with 'model' and 'messages'")
    data = {name: value for name, value in data.items() if name not in UNREAD}
    _check_left_out(data)
    newer = data.pop("max_completion_tokens", None)
    if newer is not None:
        if data.get("max_tokens") not in (None, newer):
            raise BadRequest(
                "max_tokens and max_completion_tokens differ; send one", "max_completion_tokens"
            )
        data["max_tokens"] = newer
    try:
        request = ChatRequest.model_validate(data)
    except ValidationError as e:
        raise _about(e) from e
    if request.model != served:
        raise BadRequest(
            f"the model {request.model!r:.80} is not served here, only {served!r}: ask for that",
            "model",
            404,
            "model_not_found",
        )
    if request.top_logprobs and not request.logprobs:
        raise BadRequest(
            "top_logprobs are beside logprobs: send logprobs true, too", "top_logprobs"
        )
    if request.logprobs and request.stream:
        raise BadRequest("logprobs are told of whole answers: send stream false", "logprobs")
    if request.stream_options is not None and not request.stream:
        raise BadRequest("stream_options are of streams: send stream too", "stream_options")
    return request


def _check_left_out(data: dict[str, Any]) -> None:
    for name, neutral in LEFT_OUT.items():
        value = data.pop(name, None)
        if value is not None and value != neutral:
            raise BadRequest(f"{name} of {value!r:.80} is not supported here; leave it out", name)


def _about(error: ValidationError) -> BadRequest:
    """The first thing that is wrong, in one line."""
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"][:3])
    if first["type"] == "extra_forbidden":
        return BadRequest(f"unknown parameter {printable(name, 80)}; leave it out", name)
    return BadRequest(strict_json.first_error(error), name)
