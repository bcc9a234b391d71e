"""FLOPs of published shapes, counted by hand: what the solver's small shapes have none of."""

from luvc.exporter.checkpoint.family import Family
from luvc.exporter.planning import flops

from . import published


def family(name, folder):
    return Family.load(str(published.write(name, folder)))


def test_a_convolution_of_lfm2(tmp_path):
    """LFM2-1.2B: in_proj to three times the width, out_proj, and a gated MLP of 2/3 of 12288."""
    shape = family("LFM2-VL-1.6B", tmp_path).decoder
    projections = 2048 * (3 * 2048) + 2048 * 2048
    mlp = 3 * 2048 * 8192
    assert flops.decoder_layers(shape, 0, 0, 300) == 2 * 300 * (projections + mlp)


def test_a_sliding_layer_of_gemma3(tmp_path):
    """Gemma 3 4B: 8 query and 4 key/value heads of 256; every sixth layer sees more than 1024 tokens."""
    shape = family("gemma-3-4b-it", tmp_path).decoder
    weights = 2 * 2560 * (8 * 256) + 2 * 2560 * (4 * 256) + 3 * 2560 * 10240
    near = sum(range(1, 1025)) + 476 * 1024  # keys that 1500 tokens see in a window of 1024
    whole = sum(range(1, 1501))
    for layer, pairs in ((0, near), (4, near), (5, whole)):
        attention = 2 * (2 * pairs * (8 * 256))  # scores, and the values they weigh
        assert flops.decoder_layers(shape, layer, layer, 1500) == 2 * 1500 * weights + attention
    assert flops.decoder_layers(shape, 0, 0, 3) == 2 * 3 * weights + 2 * (2 * 6 * (8 * 256))


def test_layers_of_gemma4(tmp_path):
    """Gemma 4 E2B: one key/value head, 256 wide in sliding layers and 512 in every fifth; 20 layers share.

    Those have an MLP twice as wide and one query; every layer has 256 inputs of its own.
    """
    shape = family("gemma-4-E2B-it", tmp_path).decoder
    assert (shape.prompted, shape.prunable) == (15, 14)
    mlp, own = 3 * 1536 * 6144, 2 * 1536 * 256
    for layer, size, pairs in ((0, 256, sum(range(1, 301))), (4, 512, sum(range(1, 301)))):
        weights = 2 * 1536 * (8 * size) + 2 * 1536 * size + mlp + own
        attention = 2 * (2 * pairs * (8 * size))
        assert flops.decoder_layers(shape, layer, layer, 300) == 2 * 300 * weights + attention
    for layer, size, keys in ((15, 256, 512), (34, 512, 900)):
        weights = 2 * 1536 * (8 * size) + 2 * mlp + own
        attention = 2 * (2 * keys * (8 * size))
        assert flops.decoder_layers(shape, layer, layer, 900) == 2 * weights + attention
    assert flops.layer_inputs(shape, 300) == 2 * 300 * 1536 * (35 * 256)


def test_keys_that_are_values_in_gemma4(tmp_path):
    """Gemma 4 31B: every sixth layer has 4 heads of 512 that are keys and values, others 16 of 256."""
    shape = family("gemma-4-31B-it", tmp_path).decoder
    mlp, pairs = 3 * 5376 * 21504, sum(range(1, 301))
    for layer, size, kv in ((0, 256, 2 * 16 * 256), (5, 512, 4 * 512)):
        weights = 5376 * (2 * 32 * size + kv) + mlp
        attention = 2 * (2 * pairs * (32 * size))
        assert flops.decoder_layers(shape, layer, layer, 300) == 2 * 300 * weights + attention


def test_linear_attention_of_qwen3_5(tmp_path):
    """Qwen3.5 9B: 16 key and 32 value heads of 128, gates, and a state read twice and corrected once."""
    shape = family("Qwen3.5-9B", tmp_path).decoder
    mixed = 2 * 16 * 128 + 32 * 128  # queries, keys and values
    weights = 4096 * (mixed + 32 * 128 + 2 * 32) + 32 * 128 * 4096 + 3 * 4096 * 12288
    state = 3 * 32 * 128 * 128
    assert flops.decoder_layers(shape, 0, 0, 300) == 2 * 300 * (weights + state)


def test_the_projectors_of_qwen3_vl(tmp_path):
    """Qwen3-VL 8B: a merger behind the last layer, and one for each of three tapped layers."""
    shape = family("Qwen3-VL-8B-Instruct", tmp_path).encoder
    patches, visual = 28 * 28, 14 * 14
    embedding = 2 * patches * (3 * 2 * 16 * 16) * 1152
    weights = 4 * 1152 * 1152 + 2 * 1152 * 4304
    layer = 2 * patches * weights + 2 * (2 * patches * patches * 1152)
    merger = 2 * visual * (4608 * 4608 + 4608 * 4096)
    assert flops.vision(shape, patches, (patches,) * 27) == embedding + 27 * layer + 4 * merger
