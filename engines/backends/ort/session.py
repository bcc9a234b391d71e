"""A session of ONNX Runtime together with the memory that its weights lie in."""

from typing import Any

import onnxruntime


class WeightedSession(onnxruntime.InferenceSession):
    """A session that reads weights which others read too: they stay as long as one of them does.

    Args:
        model: serialized.
        options: onnxruntime.SessionOptions that name the weights.
        weights: their owner.
    """

    def __init__(self, model: bytes, options: Any, weights: object):
        super().__init__(model, options, providers=["CPUExecutionProvider"])
        self.weights = weights
