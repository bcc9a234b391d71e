"""Torch operators and marks that become nodes of a graph, and the attention that layers call."""
