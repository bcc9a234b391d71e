"""TensorRT and TensorRT-RTX as backends: one switch decides which, everything else is shared."""
