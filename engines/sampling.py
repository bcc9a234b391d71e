"""From logits to the next token: greedy or sampled, with the standard transformations.

Order and meaning are those of Hugging Face's generation: repetition penalty, temperature, top-k,
top-p. Letters: B batch.
"""

from collections.abc import Sequence
from numbers import Number
from typing import Annotated, Any, TypedDict, Unpack

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .. import strict_json
from ..errors import LuvcError
from .bundle.folder import Bundle

GENERATION = "generation_config.json"
STOPS = 16
STOP_LENGTH = 256
"""Most stop texts of a request, and characters of each."""
LIKELIEST = 20
"""Most tokens told in one place, as OpenAI's API has it."""
# transformers' settings that choose other tokens and are not known here, and what changes nothing beside
# None; lengths are not among them: max_new_tokens and the text capacity stand for max_length
NEUTRAL = {
    "num_beams": 1, "penalty_alpha": 0, "dola_layers": None, "constraints": None,
    "force_words_ids": None, "guidance_scale": 1, "token_healing": False, "watermarking_config": None,
    "min_length": 0, "min_new_tokens": 0, "exponential_decay_length_penalty": None,
    "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "encoder_repetition_penalty": 1,
    "bad_words_ids": None, "suppress_tokens": None, "begin_suppress_tokens": None,
    "forced_bos_token_id": None, "forced_eos_token_id": None, "sequence_bias": None,
    "min_p": 0, "top_h": None, "typical_p": 1, "epsilon_cutoff": 0, "eta_cutoff": 0,
}  # fmt: skip


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling` as keyword arguments; None leaves a field as it is."""

    max_new_tokens: int | None
    do_sample: bool | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    repetition_penalty: float | None
    eos_token_id: int | Sequence[int] | None
    stop: str | Sequence[str] | None
    stop_strings: str | Sequence[str] | None  # transformers' name of `stop`
    seed: int | None
    logprobs: int | None


class Sampling(BaseModel):
    """How tokens are chosen and when to stop; names and meaning as in transformers' generation.

    Attributes:
        max_new_tokens: longest answer, in tokens.
        do_sample: sample instead of taking the most likely token; `override` turns it on for a
            temperature above 0, top_k or top_p.
        temperature: divides the logits when sampling.
        top_k: sample from the k most likely tokens (0 = all).
        top_p: sample from the smallest set of tokens with this probability.
        repetition_penalty: divides positive and multiplies negative logits of tokens already seen.
        eos_token_id: ids that end the answer.
        stop: texts that end the answer; they are not part of it. They are looked for with every token,
            so their number and length are bounded.
        seed: of the sampling, which it does not turn on; None draws one.
        logprobs: tell the log-probability of each token, and of so many of the likeliest in its place; None
            tells none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_new_tokens: int = Field(default=512, ge=1)
    do_sample: bool = False
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    top_k: int = Field(default=50, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    repetition_penalty: float = Field(default=1.0, ge=1e-3, le=1e3)
    eos_token_id: tuple[int, ...] = ()
    stop: tuple[Annotated[str, Field(max_length=STOP_LENGTH)], ...] = Field(
        default=(), max_length=STOPS
    )
    seed: int | None = Field(default=None, ge=0)
    logprobs: int | None = Field(default=None, ge=0, le=LIKELIEST)

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)) and len(value) > STOPS:  # before each is looked at
            raise ValueError(f"at most {STOPS} texts, got {len(value)}")
        return (value,) if isinstance(value, str) else value

    @field_validator("eos_token_id", mode="before")
    @classmethod
    def _one_eos(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else (value or ())

    @classmethod
    def of(cls, bundle: Bundle) -> "Sampling":
        """As the bundle's generation config says.

        Raises:
            LuvcError: a value is out of range.
        """
        try:
            return cls.from_generation_config(generation_config(bundle))
        except ValidationError as e:
            path = bundle.processor / GENERATION
            raise LuvcError(
                f"{path}: {strict_json.first_error(e)}; mend it in the checkpoint and export"
            ) from e

    @classmethod
    def from_generation_config(cls, config: dict[str, Any]) -> "Sampling":
        """The fields of a generation_config.json that are known here; `not_carried` tells others."""
        config = {"stop": config.get("stop_strings")} | config
        known = {k: v for k, v in config.items() if k in cls.model_fields and v is not None}
        if known.get("temperature") == 0:  # some checkpoints write greedy like this
            known |= {"temperature": 1.0, "do_sample": False}
        return cls(**known)

    def override(self, **changes: Unpack[SamplingOptions]) -> "Sampling":
        """A copy with some fields changed; None leaves a field as it is.

        Raises:
            LuvcError: an unknown name or a value out of range.
        """
        given: dict[str, Any] = {k: v for k, v in changes.items() if v is not None}
        if "stop_strings" in given:
            given.setdefault("stop", given.pop("stop_strings"))
        temperature = given.get("temperature")
        if isinstance(temperature, Number) and temperature == 0:
            given |= {"temperature": 1.0, "do_sample": False}
        elif {"temperature", "top_k", "top_p"} & set(given):
            given.setdefault("do_sample", True)
        try:
            return Sampling(**(self.model_dump() | given))
        except ValidationError as e:
            raise LuvcError(f"generation option {strict_json.first_error(e)}") from e


def generation_config(bundle: Bundle) -> dict[str, Any]:
    """The generation config that export wrote; empty where a bundle has none.

    Raises:
        LuvcError: not readable, or no JSON object.
    """
    path = bundle.processor / GENERATION
    try:
        found = strict_json.read(path) if path.is_file() else {}
        if not isinstance(found, dict):
            raise ValueError(f"it holds {found!r:.80}, not an object")
    except (OSError, ValueError) as e:
        raise LuvcError(f"{path} cannot be read ({e}); export the bundle again") from e
    return found


def not_carried(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of a generation_config.json that choose other tokens and that `Sampling` has no field for."""
    return {
        name: config[name]
        for name, neutral in NEUTRAL.items()
        if config.get(name) not in (None, [], {}, neutral)
    }


class Sampler:
    """Chooses tokens for one conversation.

    Args:
        sampling: how.
        prompt: token ids already seen, for the repetition penalty.
        row: place in a batch; rows of one seed draw differently, row 0 as a batch of one.
    """

    def __init__(self, sampling: Sampling, prompt: Sequence[int], row: int = 0):
        self.sampling = sampling
        seed = sampling.seed
        self.random = np.random.default_rng([seed, row] if seed is not None and row else seed)
        self._seen = set(prompt)

    def choose(self, logits: np.ndarray) -> int:
        """The next token for logits float32 [vocabulary].

        Raises:
            LuvcError: the logits are not numbers.
        """
        s = self.sampling
        scores = logits.astype(np.float64)
        if not np.isfinite(scores.max()):
            raise LuvcError(
                "the model's logits are not finite: half precision overflowed; export with --dtype bf16, "
                "or with fp32 for a CPU"
            )
        if s.repetition_penalty != 1:
            seen = np.fromiter(self._seen, np.int64)
            seen = seen[seen < len(scores)]  # an image's id may lie behind the vocabulary
            value = scores[seen]
            p = s.repetition_penalty
            scores[seen] = np.where(value > 0, value / p, value * p)
        token = self._sample(scores) if s.do_sample else int(scores.argmax())
        self._seen.add(token)
        return token

    def _sample(self, scores: np.ndarray) -> int:
        tokens, p = distribution(scores, self.sampling)
        return int(tokens[self.random.choice(len(p), p=p)])


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Of the model itself, before any option of the sampling, float64 [vocabulary]."""
    scores = logits.astype(np.float64)
    scores -= scores.max()
    return scores - np.log(np.exp(scores).sum())


def distribution(scores: np.ndarray, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """Candidates after temperature, top-k and top-p.

    Args:
        scores: float64 [vocabulary].
        sampling: temperature, top_k, top_p.

    Returns:
        Token ids and their probabilities, which sum to 1; ids ascend.
    """
    tokens = np.arange(len(scores))
    if 0 < sampling.top_k < len(scores):  # cut first: a vocabulary is large, top_k is small
        least = np.partition(scores, -sampling.top_k)[-sampling.top_k]
        tokens = np.flatnonzero(scores >= least)
    scores = scores[tokens]
    with np.errstate(over="ignore"):  # a temperature near 0 leaves the likeliest alone
        p = np.exp((scores - scores.max()) / sampling.temperature)
    p /= p.sum()
    if sampling.top_p < 1:
        order = np.argsort(-p, kind="stable")
        before = np.cumsum(p[order]) - p[order]  # probability of all likelier tokens
        p[order[before >= sampling.top_p]] = 0
        p /= p.sum()
    return tokens, p
