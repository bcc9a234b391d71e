"""Fuzzing: whatever comes from outside gives a right result or a LuvcError, within bounds.

A surface (surfaces.py) is a hypothesis strategy of inputs and what the product does with one. `make test`
tries a few of each and every input that was ever found to fail (found/); `make fuzz` tries thousands,
guided by coverage, in child processes whose time and memory are watched.
"""
