"""Loads the C++ plugin library into TensorRT's registry, through the package's own function.

Run by test_plugin_library.py in a process of its own:
    python load_library.py PACKAGES SCRATCH LIBRARY > answers.json
"""

import json
import sys
from pathlib import Path

import numpy as np
from drive import load_tensorrt

ATTRIBUTES = {
    "SpectrumScore": {"cutoff": 128, "groups": 1, "band": 1},
    "SpectrumSelect": {"keep": 512, "groups": 1},
    "GatherTokens": {},
}


def create(trt, name, attributes):
    """The fields the creator names, and whether it makes a plugin of these attributes."""
    creator = trt.get_plugin_registry().get_creator(name, "1", "luvc")
    kind = trt.PluginFieldType.INT64
    fields = [trt.PluginField(key, np.array([value]), kind) for key, value in attributes.items()]
    collection = trt.PluginFieldCollection(fields)
    plugin = creator.create_plugin(name, collection, trt.TensorRTPhase.BUILD)
    return [field.name for field in creator.field_names], plugin is not None


def main():
    trt = load_tensorrt(Path(sys.argv[1]), Path(sys.argv[2]))
    from luvc.errors import LuvcError
    from luvc.plugins import tensorrt_registry as plugins

    messages = []

    def refused(path):
        try:
            plugins.load_library(path)
        except LuvcError as error:
            messages.append(str(error))

    refused("missing.so")
    plugins.load_library(sys.argv[3])
    plugins.register()  # finds all three and leaves them
    refused(sys.argv[3])
    answers = {name: create(trt, name, values) for name, values in ATTRIBUTES.items()}
    answers["no band"] = create(trt, "SpectrumScore", {"cutoff": 1, "groups": 1})
    answers["missing attribute"] = create(trt, "SpectrumScore", {"cutoff": 1})
    # TensorRT logs to standard output, so the answers come last, on a line of their own.
    print("\n" + json.dumps({"answers": answers, "messages": messages}))


if __name__ == "__main__":
    main()
