"""Where stages stand in a model of so many layers."""

from ...errors import LuvcError
from .defaults import SolverOptions


def stage_layers(
    options: SolverOptions, layers: int, prunable: int | None = None
) -> tuple[int, ...]:
    """Layers before which tokens are pruned, of a model of so many; the last layer's own stage apart.

    A part that falls before the first layer goes to layer 1 where no other stands there, and else gives
    none, as one does that falls on the last layer's own stage: `without_stage`.

    Args:
        options: the solver's.
        layers: that run the whole prompt.
        prunable: layers before which a stage may stand, where not before all; the last has no own stage then.

    Raises:
        LuvcError: two parts fall before the same layer.
    """
    return tuple(sorted(_stages(options, layers, prunable)))


def without_stage(
    options: SolverOptions, layers: int, prunable: int | None = None
) -> tuple[float, ...]:
    """Parts of the layers that give no stage of their own in a model of so many."""
    standing = _stages(options, layers, prunable).values()
    return tuple(part for part in options.stages if part not in standing)


def _stages(options: SolverOptions, layers: int, prunable: int | None) -> dict[int, float]:
    """The part that stands before each layer."""
    end = layers - 1 if options.elimination == "last" else layers
    end = end if prunable is None else prunable
    found: dict[int, float] = {}
    early = []
    for part in sorted(options.stages):
        layer = int(layers * part)
        if part and not layer:
            early.append(part)
        elif layer in found:
            raise LuvcError(
                f"--stages {found[layer]:g} and {part:g} both fall before layer {layer} of {layers}: leave "
                "one of them out"
            )
        elif layer < end:
            found[layer] = part
    if early and end > 1:
        found.setdefault(1, early[-1])
    return found
