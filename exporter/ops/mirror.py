"""Parts of a Hugging Face model under their own names, so that weights keep the checkpoint's names."""

from torch import nn


def mirror(model: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """An empty module that holds `model`'s submodules (and parameters) under their own dotted names."""
    root = nn.Module()
    for name in names:
        *path, last = name.split(".")
        parent, source = root, model
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent, source = getattr(parent, part), getattr(source, part)
        setattr(parent, last, getattr(source, last))
    return root
