"""The SPU: the torch reference against numpy, the ONNX bodies against the reference."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper as h

from luvc.plugins.onnx_functions import function_of
from luvc.plugins.operators import OPERATORS
from luvc.plugins.scores.spectrum.contract import BANDS, cutoff_bin, filters
from luvc.plugins.scores.spectrum.reference import spectrum_score, twiddle
from luvc.plugins.tokens.reference import gather_tokens, spectrum_select

CASES = [  # V, S, D, keep, cutoff bin, groups
    (64, 90, 32, 20, 8, 1),
    (49, 60, 16, 11, 6, 1),
    (64, 90, 32, 20, 32, 1),  # every bin: the low-pass is the identity
    (63, 80, 8, 63, 3, 1),
    (48, 60, 8, 9, 4, 3),
    (15, 20, 8, 15, 7, 1),
    (1, 9, 4, 1, 0, 1),
]
CASES = [
    (*case, band)
    for case in CASES
    for band in (0, 1)
    if not band or 2 * case[4] + 1 < case[0] // case[5]  # else the high band is rounding alone
]
CASES.append((36, 50, 6, 9, 0, 1, 1))  # less the mean; as band low all tokens would tie


def feed(V, S, D, seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    signal = torch.randn(batch, S, D, generator=generator)
    starts = torch.arange(batch) * 2 + 3
    visual_index = starts[:, None] + torch.arange(V)[None]
    positions = torch.arange(S)[None, :, None].expand(batch, -1, 1).contiguous()
    return signal, visual_index, positions


def numpy_energies(signal, visual_index, cutoff, groups, band):
    """The definition in numpy float64, by full FFT and mask."""
    out = []
    for row, index in zip(signal.double().numpy(), visual_index.numpy(), strict=True):
        x = row[index].reshape(groups, -1, row.shape[1])
        n = x.shape[1]
        bins = np.minimum(np.arange(n), n - np.arange(n))
        held = (bins > cutoff) if band else (bins <= cutoff)
        y = np.fft.ifft(np.fft.fft(x, axis=1) * held[None, :, None], axis=1).real
        out.append((y**2).sum(-1).reshape(-1))
    return np.stack(out)


@pytest.mark.parametrize(("V", "S", "D", "keep", "cutoff", "groups", "band"), CASES)
def test_reference_equals_numpy(V, S, D, keep, cutoff, groups, band):
    signal, visual_index, positions = feed(V, S, D)
    energies = spectrum_score(signal, visual_index, twiddle(V // groups), cutoff, groups, band)
    wanted = numpy_energies(signal, visual_index, cutoff, groups, band)
    np.testing.assert_allclose(energies[:, 0].numpy(), wanted, rtol=1e-4, atol=1e-6 * wanted.max())
    keep_index, next_visual, kept = spectrum_select(energies, visual_index, positions, keep, groups)
    for row in range(2):
        scores = energies[row, 0].numpy().reshape(groups, -1)
        best = np.sort(np.argsort(-scores, axis=1, kind="stable")[:, : keep // groups], axis=1)
        ordinals = (best + np.arange(groups)[:, None] * (V // groups)).ravel()
        assert kept[row].tolist() == ordinals.tolist()
        gone = set(visual_index[row].tolist()) - set(visual_index[row][ordinals].tolist())
        survivors = [p for p in range(S) if p not in gone]
        assert keep_index[row].tolist() == survivors
        places = [survivors.index(p) for p in visual_index[row][ordinals].tolist()]
        assert next_visual[row].tolist() == places


def test_ties_go_to_the_lower_position():
    _, visual_index, positions = feed(8, 20, 4)
    energies = torch.tensor([1.0, 2, 2, 1, 2, 1, 1, 1]).expand(2, 1, -1).contiguous()
    _, _, kept = spectrum_select(energies, visual_index, positions, 5, 1)
    assert kept[0].tolist() == [0, 1, 2, 3, 4]
    outputs = run_onnx(torch.zeros(2, 20, 4), visual_index, positions, 5, 1, 1, 0, energies)
    assert outputs["kept"][0].tolist() == [0, 1, 2, 3, 4]


def run_onnx(signal, visual_index, positions, keep, cutoff, groups, band, energies=None):
    """The three function bodies in ONNX Runtime; given energies replace the scored ones."""
    V, D = visual_index.shape[1], signal.shape[2]
    model = stage_model(V, D, (keep, cutoff, groups, band), energies is not None)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    values = {
        "signal": signal,
        "index": visual_index,
        "pos": positions,
        "twiddle": twiddle(V // groups),
    }
    if energies is not None:
        values["energies"] = energies
    names = [o.name for o in session.get_outputs()]
    feeds = {k: v.numpy() for k, v in values.items()}
    return dict(zip(names, map(np.asarray, session.run(None, feeds)), strict=True))


def stage_model(V, D, attributes, given):
    """A model of the three calls of one stage; `given` energies are an input."""
    info = h.make_tensor_value_info
    keep, cutoff, groups, band = attributes
    inputs = [
        info("signal", 1, ["B", "S", D]),
        info("index", 7, ["B", V]),
        info("pos", 7, ["B", "S", 1]),
        info("twiddle", 1, [V // groups, 2]),
    ]
    if given:
        inputs.append(info("energies", 1, ["B", 1, V]))
    outputs = [
        info("scored", 1, ["B", 1, V]),
        info("keep_index", 7, ["B", None]),
        info("next_visual_index", 7, ["B", keep]),
        info("kept", 7, ["B", keep]),
        info("rows", 1, ["B", None, D]),
        info("row_pos", 7, ["B", None, 1]),
    ]
    nodes = stage_nodes(keep, cutoff, groups, band, "energies" if given else "scored")
    return h.make_model(
        h.make_graph(nodes, "spu", inputs, outputs),
        opset_imports=[h.make_opsetid("", 24), h.make_opsetid("luvc", 1)],
        ir_version=11,
        functions=[function_of(operator).to_function_proto() for operator in OPERATORS],
    )


def stage_nodes(keep, cutoff, groups, band, energies):
    """Score, select and gather, as the exporter writes them."""
    plugin = {"plugin_namespace": "luvc", "plugin_version": "1", "aot": 1, "domain": "luvc"}
    score = ["SpectrumScore", ["signal", "index", "twiddle"], ["scored"]]
    chosen = ["keep_index", "next_visual_index", "kept"]
    select = ["SpectrumSelect", [energies, "index", "pos"], chosen]
    gather = ["GatherTokens", ["signal", "pos", "keep_index"], ["rows", "row_pos"]]
    return [
        h.make_node(*score, cutoff=cutoff, groups=groups, band=band, **plugin),
        h.make_node(*select, keep=keep, groups=groups, **plugin),
        h.make_node(*gather, **plugin),
    ]


@pytest.mark.parametrize(("V", "S", "D", "keep", "cutoff", "groups", "band"), CASES)
def test_onnx_bodies_equal_reference(V, S, D, keep, cutoff, groups, band):
    signal, visual_index, positions = feed(V, S, D, seed=1)
    out = run_onnx(signal, visual_index, positions, keep, cutoff, groups, band)
    energies = spectrum_score(signal, visual_index, twiddle(V // groups), cutoff, groups, band)
    wanted = spectrum_select(energies, visual_index, positions, keep, groups)
    rows, row_pos = gather_tokens(signal, positions, wanted[0])
    np.testing.assert_allclose(
        out["scored"], energies, rtol=1e-4, atol=1e-6 * float(energies.max())
    )
    for name, value in zip(("keep_index", "next_visual_index", "kept"), wanted, strict=True):
        assert (out[name] == value.numpy()).all(), name
    assert (out["rows"] == rows.numpy()).all()
    assert (out["row_pos"] == row_pos.numpy()).all()


@pytest.mark.parametrize("band", [0, 1])
def test_large_twiddle_stays_exact(band):
    """At V = 4096 a float angle would be off by 1e-4; the integer modulus keeps the energies."""
    signal, visual_index, positions = feed(4096, 4110, 4, batch=1)
    out = run_onnx(signal, visual_index, positions, 64, 512, 1, band)
    wanted = numpy_energies(signal, visual_index, 512, 1, band)
    assert np.abs(out["scored"][:, 0] - wanted).max() / wanted.max() < 2e-6


def test_bodies_and_contract_agree():
    for operator in OPERATORS:
        proto = function_of(operator).to_function_proto()
        assert list(proto.input) == [t.name for t in operator.inputs]
        assert list(proto.output) == [t.name for t in operator.outputs]
        assert list(proto.attribute) == list(operator.attributes)


@pytest.mark.parametrize(
    ("cutoff", "tokens", "wanted"), [(0.25, 256, 32), (1, 9, 4), (0.1, 36, 1), (0.29, 200, 29)]
)
def test_cutoff_bin(cutoff, tokens, wanted):
    assert cutoff_bin(cutoff, tokens) == wanted


@pytest.mark.parametrize("tokens", [4, 9, 36])
def test_only_the_whole_low_pass_is_no_filter(tokens):
    """By the definition: where the score is the tokens' energy, and only there, it is left out."""
    signal, visual_index, _ = feed(tokens, tokens + 9, 3)
    plain = numpy_energies(signal, visual_index, tokens // 2, 1, 0)
    for band, name in enumerate(BANDS):
        for cutoff in range(tokens // 2 + 1):
            found = numpy_energies(signal, visual_index, cutoff, 1, band)
            assert filters(name, cutoff, tokens) != np.allclose(found, plain)
