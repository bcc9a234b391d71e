"""Model configurations as protobuf messages, which know their fields: nothing is written by hand."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from ...engines.bundle.folder import Bundle
from ...engines.bundle.graph_file import read_graph
from ...engines.bundle.joins import join_names
from ...engines.bundle.manifest import EngineFile

pb: Any = model_config_pb2  # its classes are made when it is imported: type checkers see none
Config = Any  # a pb.ModelConfig

VLM, VISION = "luvc_vlm", "luvc_vision"
TYPES = {1: "TYPE_FP32", 10: "TYPE_FP16"}  # of ONNX; Python models take no others
INPUTS = (
    ("text_input", "TYPE_STRING", 1),
    ("messages", "TYPE_STRING", 1),
    ("image", "TYPE_STRING", -1),
    ("session", "TYPE_STRING", 1),
    ("stream", "TYPE_BOOL", 1),
    ("max_tokens", "TYPE_INT32", 1),
    ("temperature", "TYPE_FP32", 1),
    ("top_p", "TYPE_FP32", 1),
    ("top_k", "TYPE_INT32", 1),
    ("repetition_penalty", "TYPE_FP32", 1),
    ("seed", "TYPE_INT64", 1),
    ("stop", "TYPE_STRING", -1),
    ("layout", "TYPE_STRING", 1),
    ("ratio", "TYPE_FP32", 1),
    ("image_tokens", "TYPE_INT32", 1),
)
OUTPUTS = (
    ("text_output", "TYPE_STRING"),
    ("finish_reason", "TYPE_STRING"),
    ("prompt_tokens", "TYPE_INT32"),
    ("visual_tokens", "TYPE_INT32"),
    ("completion_tokens", "TYPE_INT32"),
    ("reused_tokens", "TYPE_INT32"),
    ("queue_ms", "TYPE_FP32"),
    ("pixels_ms", "TYPE_FP32"),
    ("vision_ms", "TYPE_FP32"),
    ("prefill_ms", "TYPE_FP32"),
    ("decode_ms_per_token", "TYPE_FP32"),
    ("layout", "TYPE_STRING"),
    ("ratio", "TYPE_FP32"),
    ("notes", "TYPE_STRING"),
)


@dataclass(frozen=True)
class VisionGraph:
    """A vision graph that a model of its own can serve, rows (tiles) first.

    Attributes:
        graph: its path in the bundle.
        pixels, embeds: dimensions of a row of input and output.
        pixels_type, embeds_type: Triton's names of their types.
        rows: most rows of one run.
        others: names, dimensions and types of its further outputs: what matched OIM steps joined.
    """

    graph: str
    pixels: tuple[int, ...]
    embeds: tuple[int, ...]
    pixels_type: str
    embeds_type: str
    rows: int
    others: tuple[tuple[str, tuple[int, ...], str], ...] = ()


def vision_graphs(bundle: Bundle, prompts: int) -> list[VisionGraph]:
    """The bundle's vision graphs, for up to `prompts` prompts together; empty when one does not fit.

    A graph fits when it takes pixel_values and gives visual_embeds and perhaps what its steps joined, all
    with the same free first dimension: what Triton's batcher joins along it, it takes apart along it.
    """
    found = {}
    for layout in bundle.manifest.pictured:
        graph = read_graph(bundle, layout.graphs.vision).graph
        tensors = [*graph.input, *graph.output]
        names = ["pixel_values", "visual_embeds", *join_names(layout.schedule)]
        if [t.name for t in tensors] not in (names, names[:2]):  # older graphs tell no joins
            return []
        types = [t.type.tensor_type for t in tensors]
        shapes = [[d.dim_value for d in t.shape.dim] for t in types]
        free = {t.shape.dim[0].dim_param for t in types}
        if any(t.elem_type not in TYPES for t in types) or len(free) > 1 or "" in free:
            return []
        if any(not all(s[1:]) for s in shapes):
            return []
        rows = layout.pixel_shape[0] * layout.images * prompts
        held = found.get(layout.graphs.vision)
        found[layout.graphs.vision] = VisionGraph(
            layout.graphs.vision,
            tuple(shapes[0][1:]),
            tuple(shapes[1][1:]),
            TYPES[types[0].elem_type],
            TYPES[types[1].elem_type],
            max(rows, held.rows if held else 0),
            tuple(
                (t.name, tuple(shape[1:]), TYPES[t.type.tensor_type.elem_type])
                for t, shape in zip(tensors[2:], shapes[2:], strict=True)
            ),
        )
    return list(found.values())


def vlm_config(parameters: Mapping[str, Any], gpu: bool) -> Config:
    """Configuration of the whole model: decoupled, one instance, which schedules by itself."""
    inputs = [
        pb.ModelInput(name=n, data_type=_type(t), dims=[d], optional=True) for n, t, d in INPUTS
    ]
    outputs = [pb.ModelOutput(name=n, data_type=_type(t), dims=[1]) for n, t in OUTPUTS]
    return pb.ModelConfig(
        name=VLM,
        backend="python",
        input=inputs,
        output=outputs,
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=True),
        instance_group=[_instances(gpu)],
        parameters=_parameters(parameters),
    )


def vision_config(
    name: str,
    graph: VisionGraph,
    parameters: Mapping[str, Any],
    gpu: bool,
    engines: Iterable[EngineFile] = (),
) -> Config:
    """Configuration of a vision model that runs in Python.

    Args:
        name: of the model.
        graph: what it computes.
        parameters: for the model.
        gpu: run it on a GPU.
        engines: what it may run there, of any GPU architecture.
    """
    config = _vision(name, graph, engines)
    config.backend = "python"
    config.instance_group.append(_instances(gpu))
    config.parameters.MergeFrom(pb.ModelConfig(parameters=_parameters(parameters)).parameters)
    return config


def plan_config(
    name: str, graph: VisionGraph, plans: Mapping[str, EngineFile], files: Mapping[str, str]
) -> Config:
    """Configuration of a vision model that Triton's TensorRT backend runs.

    It names every output: that backend loads no plan with one that is not configured (its source,
    `ModelInstanceState::InitIOBindingBuffers`). Who asks for visual_embeds gets nothing else.

    Args:
        name: of the model.
        graph: what it computes.
        plans: engine of each GPU architecture, such as "sm90".
        files: the same architectures, names of the plans in the version's folder.
    """
    config = _vision(name, graph, plans.values())
    config.platform = "tensorrt_plan"
    config.output.extend(
        pb.ModelOutput(name=n, data_type=_type(t), dims=dims) for n, dims, t in graph.others
    )
    config.default_model_filename = next(iter(files.values()))
    for arch, file in files.items():
        number = arch.removeprefix("sm")
        config.cc_model_filenames[f"{number[:-1]}.{number[-1]}"] = file
    config.instance_group.append(_instances(True, everywhere=True))
    return config


def text(config: Config) -> str:
    """What stands in a config.pbtxt."""
    return text_format.MessageToString(config)


def _vision(name: str, graph: VisionGraph, engines: Iterable[EngineFile]) -> Config:
    return pb.ModelConfig(
        name=name,
        max_batch_size=min([graph.rows, *(e.profiles[0]["N"][2] for e in engines)]),
        input=[
            pb.ModelInput(
                name="pixel_values", data_type=_type(graph.pixels_type), dims=graph.pixels
            )
        ],
        output=[
            pb.ModelOutput(
                name="visual_embeds", data_type=_type(graph.embeds_type), dims=graph.embeds
            )
        ],
        # no delay: what arrives while a run is under way makes the next batch
        dynamic_batching=pb.ModelDynamicBatching(),
    )


def _type(name: str) -> Any:
    return pb.DataType.Value(name)


def _instances(gpu: bool, everywhere: bool = False) -> Any:
    """One instance on every GPU, or one on the first, which a Python model takes in any case."""
    kind = pb.ModelInstanceGroup.Kind.Value("KIND_GPU" if gpu else "KIND_CPU")
    gpus = [0] if gpu and not everywhere else []
    return pb.ModelInstanceGroup(kind=kind, count=1, gpus=gpus)


def _parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    items: Iterable[tuple[str, Any]] = values.items()
    return {name: pb.ModelParameter(string_value=str(value)) for name, value in items}
