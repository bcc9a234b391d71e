"""PyTorch beside a bundle: what it is held against, and what its weights are calibrated on."""
