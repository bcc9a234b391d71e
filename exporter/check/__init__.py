"""A new bundle held against PyTorch."""
