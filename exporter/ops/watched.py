"""What modules were given and gave, while something runs."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn


def given_and_gave(
    modules: Sequence[nn.Module], run: Callable[[], object]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Hidden states that each module got and returned, [B, S, D] both, in the order of the modules."""
    found: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def note(number: int, module: nn.Module, args: tuple, kwargs: dict[str, Any], out: Any) -> None:
        given = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        found[number] = given, out[0] if isinstance(out, tuple) else out

    hooks = [
        module.register_forward_hook(partial(note, number), with_kwargs=True)
        for number, module in enumerate(modules)
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return [found[number] for number in range(len(modules))]
