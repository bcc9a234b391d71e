"""One copy of the weights for all sessions of ONNX Runtime on a CPU.

ONNX Runtime would hold the weights of prefill and step apart, each transposed and packed when the
session is made: three times the file at the peak, seconds of loading. Here each weight is read once, and

    Transpose(W) -> MatMul(x, .)    becomes    FusedMatMul(x, W, transB)

so that the kernels read W as it lies in the file. Measured (docs/cpu.md): prompts and single new
tokens run as fast as with packed weights, only the steps of a batch do not, so those keep their own.

Quantised weights are packed, in every session: their kernels are made for that.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ....errors import LuvcError
from .attention import CONTRIB, fuse_attention, group_queries
from .operators import fuse_operators
from .quantised import use_kernels
from .recurrence import use_recurrence

FOLDER = "session.model_external_initializers_file_folder_path"


class SharedWeights:
    """The weight files of a bundle in memory, handed to sessions without a copy."""

    def __init__(self):
        self._files: dict[Path, np.ndarray] = {}
        self._values: dict[tuple[Path, str], Any] = {}

    def session(self, graph: Path, options: Any, packed: bool = False, model: Any = None) -> Any:
        """A CPU session of a graph.

        Args:
            graph: the ONNX file.
            options: onnxruntime.SessionOptions; weights are added to it.
            packed: let ONNX Runtime make packed copies of its own, for many short rows.
            model: what the file holds, where it was read already; changed in place.

        Raises:
            LuvcError: a weight does not lie where the graph says.
        """
        import onnx

        from .session import WeightedSession

        model = model or onnx.load(graph, load_external_data=False)
        codes = use_kernels(model)
        read_transposed(model)
        fuse_attention(model)
        group_queries(model, options.intra_op_num_threads)
        use_recurrence(model)
        fuse_operators(model)
        folder = follow(model, graph.parent)
        options.add_session_config_entry(FOLDER, str(folder))
        if not packed and not codes:
            options.add_session_config_entry("session.disable_prepacking", "1")
        for tensor in model.graph.initializer:
            bits = codes.get(tensor.name)
            # codes as they are: ONNX Runtime maps the file, packs them and lets go of it
            if tensor.data_location != onnx.TensorProto.EXTERNAL or bits == 0:
                continue
            if not packed or bits:
                options.add_initializer(tensor.name, self._value(graph, folder, tensor, bits or 0))
        return WeightedSession(model.SerializeToString(), options, self)

    def _value(self, graph: Path, folder: Path, tensor: Any, bits: int = 0) -> Any:
        """An OrtValue over the tensor's place in its file's memory.

        Args:
            graph: that reads it.
            folder: of its file.
            tensor: as the graph declares it.
            bits: to turn in every byte.
        """
        import onnx
        import onnxruntime

        where = {entry.key: entry.value for entry in tensor.external_data}
        file = folder / Path(where["location"]).name  # never outside the folder
        start, size = int(where.get("offset", 0)), int(where["length"])
        key = file, f"{start}:{tensor.dims}"
        if key not in self._values:
            data = self._space(file)[start : start + size]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            if len(data) < size or size != np.prod(tensor.dims, dtype=int) * dtype.itemsize:
                raise LuvcError(
                    f"{graph}: weight {tensor.name} does not lie in {file.name}; export again"
                )
            with file.open("rb") as f:
                f.seek(start)
                f.readinto(data.data)
            if bits:
                data ^= np.uint8(bits)
            array = data.view(dtype).reshape(tuple(tensor.dims))
            self._values[key] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        return self._values[key]

    def _space(self, file: Path) -> np.ndarray:
        """Room for a whole file, of which only what is read takes memory.

        One block, because the system gives large blocks large pages, and steps are faster on these.
        """
        if file not in self._files:
            self._files[file] = np.empty(file.stat().st_size, np.uint8)
        return self._files[file]


def follow(model: Any, folder: Path) -> Path:
    """Folder that ONNX Runtime reads weights from, which refuses links that leave it.

    In the hub's cache a bundle is a folder of links: the graph then names what its link leads to.
    """
    external = [entry for t in model.graph.initializer for entry in t.external_data]
    places = [entry for entry in external if entry.key == "location"]
    real = {entry.value: (folder / entry.value).resolve() for entry in places}
    if not any((folder / name).is_symlink() for name in real):
        return folder
    for entry in places:
        entry.value = real[entry.value].name
    (parent,) = {path.parent for path in real.values()}
    return parent


def read_transposed(model: Any) -> int:
    """Let every MatMul read its weight as stored; returns how many did change.

    Given: w_t = Transpose(w); y = MatMul(x, w_t), with w an initializer of two dimensions
    Result: y = com.microsoft.FusedMatMul(x, w, transB = 1)
    """
    import onnx

    flat = {i.name for i in model.graph.initializer if len(i.dims) == 2}
    turned = {
        n.output[0]: n for n in model.graph.node if n.op_type == "Transpose" and n.input[0] in flat
    }
    changed = 0
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in turned:
            node.input[1] = turned[node.input[1]].input[0]
            node.op_type, node.domain = "FusedMatMul", CONTRIB
            node.attribute.append(onnx.helper.make_attribute("transB", 1))
            changed += 1
    read = {name for node in model.graph.node for name in node.input}
    for name, node in turned.items():
        if name not in read:
            model.graph.node.remove(node)
    if changed:
        model.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))
    return changed
