"""Bundles of quantised weights: what their file and graphs hold, and that both are PyTorch's numbers."""

import shutil

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open

from luvc.engines.bundle.folder import WEIGHTS
from luvc.errors import LuvcError
from luvc.exporter import ExportConfig, export
from luvc.exporter.check.parity import reports
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.checkpoint.stored import check_stored
from luvc.exporter.checkpoint.weights import load_model
from luvc.exporter.onnx.weights_file import WeightsFile
from luvc.exporter.prepare import planned_weights
from luvc.exporter.quantised.rounding import Rounding

from ..conftest import CASES, ask

LAYERS = CASES["qwen2-int8"].shape["layers"]
QUANTISED = ["qwen2-int8", "qwen3-int4"]  # a head tied to the embedding; norms of queries and keys
EACH = 7  # products of a layer: q, k, v, o, gate, up, down


def tensors(bundle):
    with safe_open(str(bundle.file(WEIGHTS)), "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def original(bundle):
    return dict(
        load_model(Family.load(bundle.manifest.model)).named_parameters(remove_duplicate=False)
    )


@pytest.mark.parametrize("case", QUANTISED)
def test_graphs_and_kernels_are_pytorchs(workshop, case):
    """PyTorch has the numbers that the codes stand for; the kernels round activations, too."""
    bundle = workshop.bundle(case)
    kernels, written = sorted(reports(bundle), key=lambda r: len(r.backend))
    assert (written.backend, written.rounded) == ("ort, as written", False)
    assert written.passed and written.greedy_equal == written.greedy_tokens == 64
    assert max(s.relative_error for s in written.stages) <= 1e-4
    assert written.kept and all(k.overlap == 1 for k in written.kept)
    assert (kernels.backend, kernels.rounded, kernels.passed) == ("ort", True, True)
    assert max(s.relative_error for s in kernels.stages) > 1e-4
    assert min(s.cosine for s in kernels.stages) > 0.995


@pytest.mark.parametrize("case", QUANTISED)
def test_the_file_holds_codes_of_products_and_all_else_as_it_was(workshop, case):
    bundle = workshop.bundle(case)
    found, model = tensors(bundle), original(bundle)
    how = bundle.manifest.weights
    coded = {n.removesuffix(".codes") for n in found if n.endswith(".codes")}
    assert len(coded) == EACH * LAYERS + 1 and "lm_head.weight" in coded
    assert not [n for n in coded if "embed" in n or "norm" in n or "vision" in n]
    plain = {n for n in found if not n.endswith((".codes", ".scales"))}
    assert not coded & plain and any("embed_tokens" in n for n in plain)
    for name in plain:
        assert torch.equal(found[name], model[name]), name
    for name in coded:
        codes, w = found[f"{name}.codes"].numpy(), model[name].detach().double().numpy()
        steps = found[f"{name}.scales"].double().numpy().reshape(len(w), -1)
        if how.kind == "int8":
            codes = codes.T
        else:
            halves = codes.astype(int)[..., None] >> [0, 4] & 15
            codes = (halves - 16 * (halves > 7)).reshape(w.shape)
        steps = steps.repeat(w.shape[1] // steps.shape[1], 1)
        assert (np.abs(codes * steps - w) <= steps / 2 * (1 + 1e-4)).all(), name


@pytest.mark.parametrize("case", QUANTISED)
def test_graphs_read_codes_by_standard_operators(workshop, case):
    bundle = workshop.bundle(case)
    graphs = bundle.manifest.layouts[0].graphs
    for graph in (graphs.prefill, graphs.step):
        model = onnx.load(bundle.file(graph), load_external_data=False)
        onnx.checker.check_model(str(bundle.file(graph)))
        nodes = [n for n in model.graph.node if n.op_type == "DequantizeLinear"]
        assert len(nodes) == EACH * LAYERS + 1 and not {n.domain for n in nodes} - {""}
        kinds = {t.name: t.data_type for t in model.graph.initializer}
        wanted = getattr(onnx.TensorProto, bundle.manifest.weights.kind.upper())
        assert {kinds[n.input[0]] for n in nodes} == {wanted}
        shapes = {t.name: list(t.dims) for t in model.graph.initializer if t.data_type == 1}
        read = [shapes.get(n.input[0], []) for n in model.graph.node if n.op_type == "Gather"]
        language = bundle.manifest.language
        assert [language.vocab_size, language.hidden] in read  # the embedding
    vision = onnx.load(bundle.file(graphs.vision), load_external_data=False)
    assert not [n for n in vision.graph.node if n.op_type == "DequantizeLinear"]


@pytest.mark.parametrize("case", ["qwen2", *QUANTISED])
def test_the_plan_knows_the_bytes(workshop, case):
    bundle, c = workshop.bundle(case), CASES[case]
    model = bundle.manifest.model
    options = {k: v for k, v in c.options.items() if k in ("weights", "group_size")}
    planned = planned_weights(Family.load(model), ExportConfig.make(model=model, **options))
    assert planned.bytes == bundle.manifest.files[WEIGHTS].bytes


@pytest.mark.parametrize("case", QUANTISED)
def test_codes_of_other_weights_are_noticed(workshop, tmp_path, case):
    bundle = workshop.bundle(case)
    family, how = Family.load(bundle.manifest.model), bundle.manifest.weights
    rounding = Rounding(how, torch.float32)
    assert check_stored(family, bundle.file(WEIGHTS), rounding) > 10
    broken = shutil.copy(bundle.file(WEIGHTS), tmp_path / "weights.safetensors")
    model = {n: p.detach() for n, p in original(bundle).items()}
    coded = {n for n in model if f"{n}.codes" in tensors(bundle)}
    turned = {n: p.flip(0) if n in coded else p for n, p in model.items()}
    WeightsFile(broken, turned, torch.float32, coded, rounding).write()
    with pytest.raises(LuvcError, match=r"codes was loaded with other values than its file holds"):
        check_stored(family, broken, rounding)


def test_a_batch_answers_as_its_rows_alone(workshop, picture):
    vlm = workshop.vlm("qwen2-int8")
    assert "int8 products" in vlm.runner.description
    questions = [ask(text, picture) for text in ("Why?", "What colour is the largest shape?")]
    batch = vlm.generate(questions, max_new_tokens=8)
    alone = [vlm.generate(question, max_new_tokens=8) for question in questions]
    assert [a.token_ids for a in batch] == [a.token_ids for a in alone]


def test_groups_that_do_not_fit_are_refused_before_weights_are_read(workshop, tmp_path):
    source = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    model = shutil.copytree(source, tmp_path / "model")
    for shard in model.glob("*.safetensors"):
        shard.unlink()
    config = {"model": str(model), "output": tmp_path / "bundle", "weights": "int4", "ratio": 1}
    text = r"--group-size 128 does not divide the 320 inputs of .*down_proj.weight: give --group-size 64"
    file = model / "config.json"
    file.write_text(
        file.read_text().replace('"intermediate_size": 512', '"intermediate_size": 320')
    )
    with pytest.raises(LuvcError, match=text):
        export(ExportConfig.make(**config))
    file.write_text(
        file.read_text().replace('"intermediate_size": 320', '"intermediate_size": 330')
    )
    with pytest.raises(LuvcError, match=r"does not divide the 330 inputs .*: use --weights int8"):
        export(ExportConfig.make(**config))
    with pytest.raises(
        LuvcError, match=r"330 inputs, which is no multiple of 4: leave --weights out"
    ):
        export(ExportConfig.make(**config | {"weights": "int8"}))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weights": "int8", "group_size": 64}, "--group-size 64 is for --weights int4"),
        ({"group_size": 64}, "--group-size 64 is for --weights int4"),
        ({"weights": "int4", "group_size": 48}, "--group-size"),
        ({"weights": "int3"}, "--weights"),
    ],
)
def test_options_that_cannot_be_met(options, text):
    with pytest.raises(LuvcError, match=text):
        ExportConfig.make(model="x", **options)


def test_numbers_too_large_for_the_scale_are_refused(tmp_path):
    from luvc.engines.bundle.manifest import Quantisation

    rounding = Rounding(Quantisation(kind="int8"), torch.float16)
    file = WeightsFile(
        tmp_path / "w", {"w": torch.full((4, 8), 1e5)}, torch.float16, {"w"}, rounding
    )
    with pytest.raises(LuvcError, match="weight w is larger than float16 holds"):
        file.write()
    broken = torch.full((4, 8), float("nan"))
    file = WeightsFile(tmp_path / "w", {"w": broken}, torch.float16, {"w"}, rounding)
    with pytest.raises(LuvcError, match="weight w holds NaN or infinity"):
        file.write()
