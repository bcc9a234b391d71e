"""A schedule's file: one schedule for every layout, or luvc-tune's, one for each layout of one model."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from ... import strict_json
from ...engines.bundle.bounded import Digest, Line, Name
from ...engines.bundle.schedule import Frozen, Schedule
from ...errors import LuvcError

KEY = "tuned_for"
"""What tells a tuned schedule's file from a plain one."""


class ModelIdentity(Frozen):
    """Which checkpoint something was found on.

    Attributes:
        model: directory or hub id, for people: a checkpoint that was moved is the same.
        config: SHA-256 of its config.json.
        weights: SHA-256 over those of its weight files.
    """

    model: Line
    config: Digest
    weights: Digest


class Tuned(Frozen):
    """Schedules that luvc-tune chose, one for each layout.

    Attributes:
        tuned_for: the checkpoint; on another one they mean nothing.
        method: what was chosen, in words.
        layouts: by the names of layouts.
    """

    tuned_for: ModelIdentity
    method: Line
    layouts: Annotated[dict[Name, Schedule], Field(min_length=1, max_length=1024)]

    def of(self, layout: str) -> Schedule:
        """The schedule of a layout.

        Raises:
            LuvcError: it was not tuned for that one.
        """
        if layout not in self.layouts:
            known = ", ".join(self.layouts)
            raise LuvcError(
                f"the schedule was tuned for layouts {known}, and this is layout {layout}: give the "
                "--image-size and --images of luvc-tune, or tune for this one"
            )
        return self.layouts[layout]

    def check(self, model: str, **found: str) -> None:
        """Refuse another checkpoint.

        Args:
            model: the checkpoint at hand, for the message.
            found: `config` or `weights`, as ModelIdentity has them.

        Raises:
            LuvcError: names both.
        """
        for name, digest in found.items():
            if digest != getattr(self.tuned_for, name):
                what = "config.json" if name == "config" else "weights"
                raise LuvcError(
                    f"the schedule was tuned for {self.tuned_for.model}, and {model} is another model (other "
                    f"{what}): run luvc-tune on it"
                )


def read_schedule(path: Path) -> Schedule | Tuned:
    """A schedule file.

    Raises:
        LuvcError: unreadable, not JSON, or not a schedule; says where.
    """
    try:
        data = strict_json.read(path)
        kind = Tuned if isinstance(data, dict) and KEY in data else Schedule
        return kind.model_validate(data)
    except OSError as e:
        raise LuvcError(f"schedule {path} cannot be read: {e.strerror}") from e
    except ValidationError as e:
        raise LuvcError(f"schedule {path}: {strict_json.first_error(e)}") from e
    except ValueError as e:
        raise LuvcError(f"schedule {path} is not valid JSON: {e}") from e
