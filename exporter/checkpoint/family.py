"""What a checkpoint is: its config read once, checked, and put into the words of the planner."""

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ...engines.bundle.manifest import LanguageModel
from ..language.traits import TextTraits, decoder_shape, text_traits
from ..planning import flops
from ..planning.grid import Grid
from ..vision.adapter import VisionAdapter
from ..vision.families import adapter_class
from .config import making_sense, read_config
from .hub import locate, named
from .processor import read_image_processor, read_tokenizer
from .quantised.format import Format


@dataclass(frozen=True)
class Family:
    """A checkpoint's architecture, from its config and processor files; no weights are read.

    Attributes:
        source: the directory or hub id as it was given.
        config: Hugging Face config.
        adapter: the vision adapter class of its model_type.
        folder: where its files lie: the directory, or the hub's snapshot, which may lack the weights.
        commit: of a hub id; None for a directory.
        format: what reads the weights, where they are quantised; `config` says nothing of it.
    """

    source: str
    config: Any
    adapter: type[VisionAdapter]
    folder: Path
    commit: str | None = None
    format: Format | None = None

    @classmethod
    def load(cls, source: str) -> "Family":
        """Read and check the config of a directory, a hub id or ID@REVISION.

        Raises:
            LuvcError: not found, not a supported vision-language model, quantised in a way that is not
                read, or needs remote code.
        """
        folder, commit = locate(source)
        config, form = read_config(source, folder)
        adapter = adapter_class(config.model_type)
        family = cls(source, adapter.narrowed(config), adapter, folder, commit, form)
        with making_sense(source):
            family.adapter.check(config)
            _ = family.traits, family.decoder
        return family

    @property
    def model(self) -> str:
        """The hub id without its revision, or the directory from the root."""
        return str(self.folder.resolve()) if self.commit is None else named(self.source)[0]

    @cached_property
    def traits(self) -> TextTraits:
        """What the decoder loop must know of the text model.

        Raises:
            LuvcError: it cannot be reproduced; says why.
        """
        return text_traits(self.config.text_config, **self.adapter.traits(self.config))

    def truncated(self, depth: int) -> "Family":
        """The same family with only the first `depth` language layers."""
        config = copy.deepcopy(self.config)
        text = config.text_config
        text.num_hidden_layers = depth
        for name in ("layer_types", "no_rope_layers"):
            if getattr(text, name, None):
                setattr(text, name, getattr(text, name)[:depth])
        return replace(self, config=config)

    @property
    def decoder(self) -> flops.DecoderShape:
        """Language model widths."""
        return decoder_shape(self.config.text_config, self.traits)

    @cached_property
    def language(self) -> LanguageModel:
        """What the bundle's manifest says of the language model."""
        with making_sense(self.source):
            return self._language()

    def _language(self) -> LanguageModel:
        d, t = self.decoder, self.traits
        token = self.adapter.image_token(self.tokenizer)
        return LanguageModel(
            model_type=self.config.text_config.model_type,
            layers=d.layers,
            kv_heads=d.kv_heads,
            head_dim=d.head_dim,
            vocab_size=d.vocab,
            image_token=token,
            image_token_id=self.tokenizer.convert_tokens_to_ids(token),
            max_positions=self.config.text_config.max_position_embeddings,
            hidden=d.hidden,
            layer_types=t.layer_types,
            window=t.window,
            conv_state=t.conv_state,
            position_axes=t.position_axes,
            first_position=t.first_position,
            time_scale=t.time_scale,
            whole_prompt=t.mask == "prompt",
            linear=t.linear,
            full_heads=d.full_heads,
            shared=t.shared,
        )

    @property
    def unembedded(self) -> list[str]:
        """Tokens of the tokenizer that the embedding has no row for; the image's needs none."""
        ids: dict[str, int] = self.tokenizer.get_added_vocab()
        known = {self.language.image_token}
        return sorted(t for t, i in ids.items() if i >= self.decoder.vocab and t not in known)

    @property
    def encoder(self) -> flops.EncoderShape:
        """Vision tower widths."""
        return self.adapter.shape(self.config)

    @property
    def multiple(self) -> Grid:
        """Lengths the merged grid must be multiples of."""
        return self.adapter.multiple(self.config)

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer, with the chat template that its processor uses."""
        return read_tokenizer(self.folder, self.source, self.adapter.template)

    @cached_property
    def image_processor(self) -> Any:
        """The checkpoint's image processor, in its Pillow form where the family has one."""
        return read_image_processor(self.folder, self.source)
