"""TensorRT plugins of luvc-export and their references."""
