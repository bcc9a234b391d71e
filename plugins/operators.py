"""All operators; a new one is its folder and one line here."""

from .recurrence.contract import DELTA
from .scores.greedy.contract import COVER, ORDER
from .scores.spectrum.contract import SCORE
from .tokens.contract import GATHER, SELECT

OPERATORS = (SCORE, SELECT, GATHER)
"""Those of LUVC's own stage, in its order: each has kernels, and is a plugin in TensorRT."""
BODIES = (*OPERATORS, ORDER, COVER, DELTA)
"""All that a graph may call; those without a kernel run by their body everywhere."""
