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


def test_the_projectors_of_qwen3_vl(tmp_path):
    """Qwen3-VL 8B: a merger behind the last layer, and one for each of three tapped layers."""
    shape = family("Qwen3-VL-8B-Instruct", tmp_path).encoder
    patches, visual = 28 * 28, 14 * 14
    embedding = 2 * patches * (3 * 2 * 16 * 16) * 1152
    weights = 4 * 1152 * 1152 + 2 * 1152 * 4304
    layer = 2 * patches * weights + 2 * (2 * patches * patches * 1152)
    merger = 2 * visual * (4608 * 4608 + 4608 * 4096)
    assert flops.vision(shape, patches, (patches,) * 27) == embedding + 27 * layer + 4 * merger
