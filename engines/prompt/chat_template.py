"""The chat template of a bundle: from messages to text, in the form that the template itself prints.

Published templates take a turn's content as a text, as a list of parts, or as either, and not the same for
every role; given the other form, some raise, some print Python's notation of the list, some print nothing.
So each role's forms are found out by rendering a text that cannot be mistaken, and every rendered prompt
is checked for the texts of its turns.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

from ...errors import LuvcError, brief
from .rendering import RenderError, renderer

Turns = Sequence[dict[str, Any]]
TEXT = "text"
PARTS = "parts"
REASONING = (
    "reasoning_content",
    "thinking",
    "reasoning",
)  # names of it, the first the standard one
# quoted or escaped in any notation, and so verbatim only where a template prints the text itself
PROBE = "luvc \"probe {}\"\n'text'"


class ChatTemplate:
    """Renders conversations.

    Args:
        tokenizer: the Hugging Face tokenizer that holds the template.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._forms: dict[str, tuple[str, ...]] = {}

    def check(self) -> None:
        """Find out the forms of the roles that every conversation has.

        Raises:
            LuvcError: there is no template, or it does not print what a user or an assistant says.
        """
        for role in ("user", "assistant"):
            if not self.forms(role):
                raise LuvcError(_prints_nothing(role))

    def render(self, turns: Turns) -> str:
        """The prompt of a conversation, as Hugging Face's `apply_chat_template` gives it.

        A turn's content is handed over in its own form where the template prints that, else in the other.

        Args:
            turns: messages with bare image and video parts.

        Raises:
            LuvcError: the template cannot render them, or would leave something out.
        """
        turns = [self._fitted(turn) for turn in turns]
        for turn in turns:
            self._check_keys(turn)
        marked, probes = _marked(turns)
        try:
            text, seen = self._apply(turns), self._apply(marked)
        except RenderError as e:
            raise LuvcError(
                f"the checkpoint's chat template cannot render these messages: {brief(e)}"
            ) from e
        for probe, role in probes:
            if probe not in seen:
                raise LuvcError(
                    f"the checkpoint's chat template does not print a text of the {role!r:.80} turn where "
                    "it stands in this conversation: leave it out or move it"
                )
        return text

    def forms(self, role: str) -> tuple[str, ...]:
        """The forms in which a role's content is printed as it is: `TEXT`, `PARTS`, both or none."""
        if role not in self._forms:
            self._forms[role] = tuple(f for f in (TEXT, PARTS) if self._prints(role, f))
        return self._forms[role]

    def _prints(self, role: str, form: str) -> bool:
        turn = {"role": role, "content": _content(PROBE, form)}
        for around in self._contexts(role):
            with contextlib.suppress(RenderError):  # the template takes no such turn there
                return PROBE in self._apply([*around[0], turn, *around[1]])
        return False

    def _contexts(self, role: str) -> list[tuple[Turns, Turns]]:
        """Turns that a turn of a role may stand between."""
        if role == "user":
            return [((), ())]
        form = next(iter(self.forms("user")), TEXT)
        user = [{"role": "user", "content": _content("Hello.", form)}]
        places: dict[str, list[tuple[Turns, Turns]]] = {"system": [((), user)]}
        return places.get(role, [(user, user), (user, ()), ((), user)])

    def _fitted(self, turn: dict[str, Any]) -> dict[str, Any]:
        """The turn with its content in a form that the template prints."""
        content = turn.get("content")
        forms = self.forms(turn["role"])
        if content is None or (TEXT if isinstance(content, str) else PARTS) in forms:
            return turn
        if not forms:
            raise LuvcError(_prints_nothing(turn["role"]))
        if isinstance(content, str):
            return turn | {"content": _content(content, PARTS)}
        if len(content) == 1 and content[0]["type"] == "text":
            return turn | {"content": content[0]["text"]}
        raise LuvcError(
            f"the checkpoint's chat template takes the {turn['role']} turn's content as one text, got "
            f"{len(content)} parts ({', '.join(p['type'] for p in content[:4])}): join them"
        )

    def _check_keys(self, turn: dict[str, Any]) -> None:
        """Refuse a key whose value makes no difference to what is rendered."""
        for key in turn.keys() - {"role", "content"}:
            without = {k: v for k, v in turn.items() if k != key}
            if not any(
                self._outcome([*before, turn, *after]) != self._outcome([*before, without, *after])
                for before, after in self._contexts("")
            ):
                raise LuvcError(
                    f"the checkpoint's chat template prints no {key!r:.80} of the {turn['role']} turn: "
                    "leave it out"
                )

    def _outcome(self, turns: Turns) -> str:
        try:
            return self._apply(turns)
        except RenderError as e:  # a template may insist on a key
            return str(e)

    def _apply(self, turns: Turns) -> str:
        """As the tokenizer's `apply_chat_template`, with bounds."""
        try:
            template = self._tokenizer.get_chat_template()
        except ValueError as e:  # none, or several without a default
            raise LuvcError(
                "the checkpoint has no chat template; add chat_template.jinja and export"
            ) from e
        values = {
            **self._tokenizer.special_tokens_map,
            "messages": [_with_reasoning(turn) for turn in turns],
            "tools": None,
            "documents": None,
            "add_generation_prompt": True,
        }
        return renderer.render(template, values)


def _with_reasoning(turn: dict[str, Any]) -> dict[str, Any]:
    """The turn with what the model thought under each of the names that templates know."""
    thought = next((turn[name] for name in REASONING if name in turn), None)
    if thought is None:
        return turn
    return {"thinking": thought, **turn, "reasoning_content": thought}


def _content(text: str, form: str) -> Any:
    return text if form == TEXT else [{"type": "text", "text": text}]


def _marked(turns: Turns) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The turns with every text of their contents replaced by one of its own -> those, with their roles."""
    probes: list[tuple[str, str]] = []

    def probe(role: str) -> str:
        probes.append((PROBE.format(len(probes)), role))
        return probes[-1][0]

    def mark(content: Any, role: str) -> Any:
        if isinstance(content, str):
            return probe(role)
        return [p | {"text": probe(role)} if p["type"] == "text" else p for p in content]

    marked = [
        turn | {"content": mark(turn["content"], turn["role"])} if "content" in turn else turn
        for turn in turns
    ]
    return marked, probes


def _prints_nothing(role: str) -> str:
    return (
        f"the checkpoint's chat template does not print what a turn of the role {role!r:.80} says: use "
        "another role, or mend the template and export"
    )
