"""From a graph module to ONNX files: inputs, tracing, passes, copies of layers, weights."""
