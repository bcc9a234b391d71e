"""Weights as whole numbers and scales: which, how they are rounded, how a graph reads them."""
