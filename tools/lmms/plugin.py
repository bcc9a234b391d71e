"""What lmms-eval's registry reads from the entry point `lmms_eval.models`: the model's name and its class."""

from typing import Any


def manifest() -> Any:
    """The ModelManifest of `--model luvc`.

    Source: lmms-eval 0.7, lmms_eval/models/registry_v2.py.
    """
    from lmms_eval.models.registry_v2 import (  # pyright: ignore[reportMissingImports]
        ModelManifest,
    )

    return ModelManifest("luvc", chat_class_path=f"{__package__}.model.Luvc")
