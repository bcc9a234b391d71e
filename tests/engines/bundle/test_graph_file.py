"""Graphs of strangers are refused before a runtime, or anything that takes time, sees them."""

import shutil
import time

import onnx
import pytest
from onnx import TensorProto, helper

from luvc.engines.backends.ort.backend import ort
from luvc.engines.bundle.folder import Bundle
from luvc.engines.bundle.graph_file import KNOWN, read_graph
from luvc.errors import LuvcError
from luvc.plugins.onnx_functions import function_of
from luvc.plugins.scores.greedy.contract import ORDER


@pytest.fixture
def bundle(workshop, tmp_path):
    """A bundle whose graphs a test may change."""
    return Bundle.load(shutil.copytree(workshop.bundle("qwen2").path, tmp_path / "bundle"))


def changed(bundle: Bundle, change) -> str:
    """Change the prefill graph -> its name."""
    name = bundle.manifest.layouts[0].graphs.prefill
    model = onnx.load(bundle.file(name), load_external_data=False)
    change(model)
    bundle.file(name).write_bytes(model.SerializeToString())
    return name


def function(
    name: str, *calls: str, domain: str = "luvc", overload: str = ""
) -> onnx.FunctionProto:
    """A function of x that calls others one after the other."""
    values = ["x", *(f"v{i}" for i in range(len(calls) - 1)), "y"]
    nodes = [
        helper.make_node(call, [values[i]], [values[i + 1]], domain="" if call in KNOWN else domain)
        for i, call in enumerate(calls)
    ]
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid(domain, 1)]
    return helper.make_function(domain, name, ["x"], ["y"], nodes, opsets, overload=overload)


def chain(model):
    """3,000 functions, each of which calls the next: a crash in ONNX Runtime."""
    names = [f"F{i}" for i in range(3000)]
    model.functions.extend(function(a, b) for a, b in zip(names, [*names[1:], "Neg"], strict=True))


def doubling(model):
    """Each calls the next twice: 2^40 nodes."""
    names = [f"F{i}" for i in range(40)]
    model.functions.extend(
        function(a, b, b) for a, b in zip(names, [*names[1:], "Neg"], strict=True)
    )


def loop(model):
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["never"], body=body))


def hidden_loop(model):
    """In the body of a function that luvc writes under this name."""
    body = helper.make_graph([], "body", [], [])
    model.functions[0].node.append(helper.make_node("If", ["c"], ["z"], then_branch=body))


def within(model):
    model.functions[0].node.extend(function("F", "GatherTokens").node)


def twice(model):
    model.functions.append(model.functions[0])


def overloaded(model):
    model.functions.append(function("GatherTokens", "Neg", overload="other"))


def foreign(model):
    model.graph.node[0].domain, model.graph.node[0].op_type = "com.microsoft", "Rfft"


def unknown(model):
    model.graph.node[0].op_type = "SequenceEmpty"


def huge(model):
    shape = helper.make_tensor("huge", TensorProto.INT64, [2], [1 << 20, 1 << 20])
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("ConstantOfShape", ["huge"], ["filled"]))


def many(model):
    model.graph.node.extend([helper.make_node("Neg", ["x"], ["y"])] * 100_001)


def long(model):
    model.functions[0].node.extend([helper.make_node("Neg", ["x"], ["y"])] * 1001)


def sparse(model):
    model.graph.sparse_initializer.add()


def unlisted(model):
    weight = next(t for t in model.graph.initializer if t.external_data)
    next(e for e in weight.external_data if e.key == "location").value = "more.bin"


def outside(model):
    constant = helper.make_tensor("c", TensorProto.FLOAT, [1], [0.0])
    constant.external_data.add(key="location", value="../../secret")
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=constant))


def greedy(model) -> onnx.GraphProto:
    """Give it luvc's function that scans -> the graph that it scans with."""
    model.functions.append(function_of(ORDER).to_function_proto())
    (scan,) = [node for node in model.functions[-1].node if node.op_type == "Scan"]
    return next(a.g for a in scan.attribute if a.HasField("g"))


def scan_outside(model):
    """Not in a function."""
    greedy(model)
    scan = next(n for n in model.functions[-1].node if n.op_type == "Scan")
    model.graph.node.append(scan)


def scan_with_graphs(model):
    greedy(model)
    scan = next(n for n in model.functions[-1].node if n.op_type == "Scan")
    scan.attribute.append(helper.make_attribute("more", [helper.make_graph([], "g", [], [])]))


def scan_in_scan(model):
    inner = greedy(model)
    other = function_of(ORDER).to_function_proto()
    inner.node.extend(n for n in other.node if n.op_type == "Scan")


def loop_in_scan(model):
    body = helper.make_graph([], "body", [], [])
    greedy(model).node.append(helper.make_node("Loop", ["", ""], ["never"], body=body))


def strange_in_scan(model):
    greedy(model).node.append(helper.make_node("RandomNormal", [], ["z"], shape=[1]))


def foreign_in_scan(model):
    greedy(model).node.append(helper.make_node("Rfft", ["value"], ["z"], domain="com.microsoft"))


def call_in_scan(model):
    greedy(model).node.append(helper.make_node("GatherTokens", ["value"], ["z"], domain="luvc"))


def long_in_scan(model):
    greedy(model).node.extend([helper.make_node("Neg", ["value"], ["z"])] * 1000)


def sparse_in_scan(model):
    greedy(model).sparse_initializer.add()


def outside_in_scan(model):
    constant = helper.make_tensor("c", TensorProto.FLOAT, [1], [0.0])
    constant.external_data.add(key="location", value="../../secret")
    greedy(model).initializer.append(constant)


def sparse_constant(model):
    values = helper.make_tensor("v", TensorProto.FLOAT, [1], [0.0])
    places = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    value = helper.make_sparse_tensor(values, places, [9])
    model.graph.node.append(helper.make_node("Constant", [], ["c"], sparse_value=value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (chain, "defines the function luvc::F0, which luvc-export does not write"),
        (doubling, "defines the function luvc::F0"),
        (loop, "the operator Loop with a graph of its own"),
        (hidden_loop, "the operator If with a graph of its own"),
        (within, "a function that calls luvc::GatherTokens"),
        (twice, "defines a function twice"),
        (overloaded, "defines a function twice"),
        (foreign, "the operator com.microsoft::Rfft"),
        (unknown, "the operator SequenceEmpty"),
        (huge, r"a tensor of 1.1e\+12 elements \(ConstantOfShape\)"),
        (many, "nodes, more than 100000"),
        (long, "has a function of 10[0-9][0-9] nodes"),
        (sparse, "sparse weights"),
        (unlisted, "reads onnx/more.bin, which the manifest does not list"),
        (outside, "leaves the bundle"),
        (scan_outside, "the operator Scan with a graph of its own"),
        (scan_with_graphs, "the operator Scan with a graph of its own"),
        (scan_in_scan, "the operator Scan with a graph of its own"),
        (loop_in_scan, "the operator Loop with a graph of its own"),
        (strange_in_scan, "the operator RandomNormal"),
        (foreign_in_scan, "a function that calls com.microsoft::Rfft"),
        (call_in_scan, "a function that calls luvc::GatherTokens"),
        (long_in_scan, "has a function of 10[0-9][0-9] nodes"),
        (sparse_in_scan, "the operator Scan with sparse weights"),
        (outside_in_scan, "leaves the bundle"),
        (sparse_constant, "the operator Constant with sparse weights"),
    ],
)
def test_what_luvc_does_not_write_is_refused_before_a_session(bundle, change, message):
    name, start = changed(bundle, change), time.perf_counter()
    with pytest.raises(LuvcError, match=message):
        ort.runner(bundle, threads=1).session(name)
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"\x08\x0a\x3a\x02\x0a\x00"])
def test_bytes_that_are_no_graph(bundle, data):
    name = bundle.manifest.layouts[0].graphs.prefill
    bundle.file(name).write_bytes(data)
    with pytest.raises(LuvcError, match=r"again|do not use"):
        ort.runner(bundle, threads=1).session(name)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.external_data.pop(),
        lambda t: setattr(t.external_data[1], "value", "-8"),
        lambda t: setattr(t.external_data[1], "value", "many"),
        lambda t: t.dims.append(-3),
        lambda t: setattr(t, "data_type", 99),
    ],
)
def test_weights_that_lie_nowhere(bundle, change):
    def weight(model):
        change(next(t for t in model.graph.initializer if t.external_data))

    with pytest.raises(LuvcError, match="again"):
        ort.runner(bundle, threads=1).session(changed(bundle, weight))


def test_luvcs_own_graphs_are_accepted(workshop):
    bundle = workshop.bundle("qwen2")
    for name in bundle.manifest.layouts[0].graphs.files:
        assert read_graph(bundle, name).graph.node


def test_luvcs_own_scan_is_accepted(bundle):
    assert read_graph(bundle, changed(bundle, greedy)).functions[-1].name == ORDER.name


def test_every_known_operator_is_one_of_onnx_and_runs_no_graph():
    for name in KNOWN:
        schema = onnx.defs.get_schema(name, 24)
        kinds = {a.type for a in schema.attributes.values()}
        assert not kinds & {onnx.defs.OpSchema.AttrType.GRAPH, onnx.defs.OpSchema.AttrType.GRAPHS}
