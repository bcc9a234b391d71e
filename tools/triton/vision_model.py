"""The model `luvc_vision` where no TensorRT engine serves it: the bundle's own runner."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from ...engines.backends import backend as load_backend
from ...engines.bundle.folder import Bundle
from .vlm_model import UTILS, read_parameters


class TritonPythonModel:
    """What Triton calls; its dynamic batcher joins the requests."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the vision graph of one layout."""
        self.pb = importlib.import_module(UTILS)
        parameters = read_parameters(args)
        bundle = Bundle.load(Path(args["model_repository"]).parent / parameters["bundle"])
        module = load_backend(parameters["backend"], bundle)
        self.runner = module.runner(bundle, threads=int(parameters["threads"]))
        graph = parameters["graph"]
        self.layout = next(x for x in bundle.manifest.layouts if x.graphs.vision == graph)
        self.runner.prepare(self.layout, language=False)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Pixels of several requests, one run."""
        pb = self.pb
        pixels = [pb.get_input_tensor_by_name(r, "pixel_values").as_numpy() for r in requests]
        embeds = self.runner.vision(self.layout, np.concatenate(pixels))
        ends = np.cumsum([len(p) for p in pixels])
        parts = np.split(embeds, ends[:-1])
        return [pb.InferenceResponse([pb.Tensor("visual_embeds", part)]) for part in parts]

    def finalize(self) -> None:
        """Give the model's memory back."""
        self.runner.close()
