"""Choosing tokens one after the other: an operator with a loop in its body, and the scores that use it."""
