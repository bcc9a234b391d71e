"""A family is a file, found by its name."""

import inspect

import pytest
from transformers import CONFIG_MAPPING

from luvc.errors import LuvcError
from luvc.exporter.vision.adapter import VisionAdapter
from luvc.exporter.vision.families import FAMILIES, adapter_class


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_file_is_named_by_a_model_type_and_holds_a_whole_adapter(model_type):
    assert model_type in CONFIG_MAPPING
    adapter = adapter_class(model_type)
    assert issubclass(adapter, VisionAdapter) and not inspect.isabstract(adapter)
    assert adapter.__module__ == f"luvc.exporter.vision.families.{model_type}"


@pytest.mark.parametrize("model_type", ["mllama", "os", "../adapter", ""])
def test_other_names_are_refused_with_those_of_the_folder(model_type):
    with pytest.raises(LuvcError, match=r"gemma3, gemma4, glm4v, .*, smolvlm") as refusal:
        adapter_class(model_type)
    assert repr(model_type) in str(refusal.value)
