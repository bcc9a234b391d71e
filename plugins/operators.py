"""All operators, in the order of a stage; a new one is its folder and one line here."""

from .scores.spectrum.contract import SCORE
from .tokens.contract import GATHER, SELECT

OPERATORS = (SCORE, SELECT, GATHER)
