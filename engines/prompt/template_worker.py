"""The process that renders chat templates: a program of its own, within bounds that the kernel keeps.

Jinja's sandbox keeps a template from Python and from files, and knows no limit of time or size. Here a render
that takes too long ends this process, and one that takes too much memory fails in it. It imports nothing of
luvc or transformers, to start fast: the environment is that of transformers' `render_jinja_template`, and a
test compares the two.

Usage: template_worker.py CPU_SECONDS WALL_SECONDS MEMORY_BYTES LONGEST_TEXT. Reads a line of JSON
[template, values] for each render, writes a line {"text"}, {"error"} or {"bound"}.
"""

import json
import resource
import signal
import sys
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar

import jinja2
from jinja2 import nodes, utils
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """`{% generation %}` marks what the assistant says, for training: here it is its body."""

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: Any) -> Any:
        """The block as a call of `said`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("said"), [], [], body).set_lineno(line)

    def said(self, caller: Any) -> str:
        """The body's text."""
        return caller()


class Namespace(utils.Namespace):
    """Refuses names that begin like Python's own."""

    def __init__(*args: Any, **kwargs: Any):  # no argument has a name: `namespace(self=1)` is one
        attributes = dict(*args[1:], **kwargs)
        for name in attributes:
            check_name(name)
        utils.Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        check_name(name)
        super().__setitem__(name, value)


class Dict:
    """The type's two uses, and none of its attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict:
        """A dictionary, as `dict` makes it."""
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict:
        """A dictionary of one value."""
        return dict.fromkeys(*args)


def check_name(name: Any) -> None:
    """Refuse a name that begins like Python's own.

    Raises:
        SecurityError: it does.
    """
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace holds no {name!r:.80}: rename it")


def raise_exception(message: Any) -> None:
    """What templates refuse messages with.

    Raises:
        TemplateError: always.
    """
    raise TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    """JSON without the escapes of HTML that Jinja's own filter writes."""
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def strftime_now(format: str) -> str:
    """The time now."""
    return datetime.now().strftime(format)


@lru_cache(maxsize=8)
def compiled(template: str) -> jinja2.Template:
    """The template in the environment that Hugging Face gives it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals.update(
        raise_exception=raise_exception,
        strftime_now=strftime_now,
        dict=Dict(),
        namespace=Namespace,
    )
    return environment.from_string(template)


def rendered(template: str, values: dict[str, Any], longest: int) -> dict[str, str]:
    """What becomes of a render."""
    try:
        text = compiled(template).render(**values)
        text.encode()  # half a surrogate pair is no text
    except (MemoryError, RecursionError, OverflowError) as e:
        return {"bound": type(e).__name__}
    except Exception as e:  # a template raises what it likes
        return {"error": str(e)[:1000] or type(e).__name__}
    return {"text": text} if len(text) <= longest else {"bound": f"{len(text)} characters"}


def give_up(memory: int) -> None:
    """What no template needs: more memory, files, a dump of a crash, and an end by the terminal's Ctrl-C."""
    for limit, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main(requests: Iterable[bytes], cpu: float, wall: float, memory: int, longest: int) -> None:
    """Answer until the other side is gone, or a clock's alarm ends the process."""
    give_up(memory)
    for request in requests:
        signal.setitimer(signal.ITIMER_PROF, cpu)
        signal.setitimer(signal.ITIMER_REAL, wall)
        template, values = json.loads(request)
        reply = rendered(template, values, longest)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    _, cpu, wall, memory, longest = sys.argv
    main(sys.stdin.buffer, float(cpu), float(wall), int(memory), int(longest))
