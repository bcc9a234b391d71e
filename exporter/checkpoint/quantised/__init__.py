"""Quantised checkpoints: what their config says, their tensors, and the plain weights these stand for."""
