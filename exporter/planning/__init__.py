"""From a ratio to integers: grids, costs, the problem and its solver. No torch, no weights."""
