"""Other products on the same weights, in an environment of their own."""
