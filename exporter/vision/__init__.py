"""The vision towers: one loop (graph.py) with OIM in it (oim.py), and an adapter for each family."""
