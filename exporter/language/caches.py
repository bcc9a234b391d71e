"""The caches of the language model's layers, in the form Hugging Face expects as `past_key_values`.

Layer l owns `cache_key_l` and `cache_value_l` [B, H_kv, C_l, d], or `cache_conv_l` [B, D, K] where it is
a convolution, and `cache_state_l` [B, H, d, e] besides where it is linear attention; the first layer of a
stage with sliding windows also owns `cache_position_l` [B, 1, C_l, 1].
C_l = text capacity + V_l: the prompt's tokens that are left at layer l, then every new one. Names and
sizes are the bundle's: `cache_specs`. Letters: B batch, T new tokens, C_l cache slots of layer l,
D hidden size, H_kv key/value heads, d head size, K columns of a convolution's state.
"""

import torch

from ..ops.scatter import write

Buffers = dict[str, torch.Tensor]  # cache tensors by name (engines/bundle/tensors.py)


class ScatterCache:
    """Fixed-capacity buffers written in place.

    Args:
        buffers: of the layers that run, by name.
        slots: first slot to write, [B], for each layer.
        fresh: attend to the new keys only (prefill) instead of the whole buffer (step).

    Attributes:
        last: [B], the last real token of each row among those that come; set before each layer.
    """

    def __init__(self, buffers: Buffers, slots: dict[int, torch.Tensor], fresh: bool):
        self.buffers = buffers
        self.slots = slots
        self.fresh = fresh
        self.last: torch.Tensor | None = None
        self.written: Buffers = {}

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int, *args, **kwargs):
        """Write [B, H_kv, T, d] and return what this call's queries attend to."""
        names = f"cache_key_{layer}", f"cache_value_{layer}"
        for name, new in zip(names, (key, value), strict=True):
            self.written[name] = write(self.buffers[name], new, self.slots[layer], self.fresh)
        return (key, value) if self.fresh else tuple(self.written[n] for n in names)

    # ---- short convolutions (LFM2)
    def get_conv_state(self, layer: int, state_idx: int = 0) -> None:
        """None: all token counts take the same way, through `update_conv_state`."""

    def is_recording_past(self, layer: int) -> bool:
        """Hugging Face's speculative decoding; never here."""
        return False

    def update_conv_state(self, hidden: torch.Tensor, layer: int, **kwargs) -> torch.Tensor:
        """Put the state before the new tokens and keep its columns behind each row's last one.

        Args:
            hidden: [B, D, T].
            layer: whose state.
            kwargs: sizes that the buffer tells.

        Returns:
            [B, D, K + T].
        """
        name = f"cache_conv_{layer}"
        state = self.buffers[name]
        if self.fresh:
            state = torch.zeros_like(state)
        full = torch.cat([state.to(hidden.dtype), hidden], -1)
        assert self.last is not None
        columns = torch.arange(state.shape[-1], device=state.device)[None] + 1 + self.last[:, None]
        index = columns[:, None].expand(-1, full.shape[1], -1)
        self.written[name] = full.gather(2, index)
        return full

    # ---- linear attention
    def state(self, layer: int) -> torch.Tensor:
        """What a layer's tokens read first, float32 [B, H, d, e]: nothing before a prompt."""
        state = self.buffers[f"cache_state_{layer}"]
        return torch.zeros_like(state) if self.fresh else state

    def keep_state(self, layer: int, state: torch.Tensor) -> None:
        """The state after the last token."""
        self.written[f"cache_state_{layer}"] = state

    def outputs(self) -> tuple[torch.Tensor, ...]:
        """Buffers after this call, in the order of the inputs."""
        return tuple(self.written[name] for name in self.buffers)
