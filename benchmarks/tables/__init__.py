"""The tables of the pages, made of what benchmarks and training recorded."""

from .bench import bench, of_weights
from .marks import RESULTS, fill

__all__ = ["RESULTS", "bench", "fill", "of_weights"]
