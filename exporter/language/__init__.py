"""The language model as graphs: the decoder loop, pruning, caches, positions and masks."""
