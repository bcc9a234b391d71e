"""A device made of host memory, and sessions that run the ONNX graph on it when TensorRT would.

Work is queued and done at `synchronise`, as on a stream: what reads a result too early fails.
"""

import ctypes
from pathlib import Path

import numpy as np
import onnx
import onnxruntime


def view(address: int, shape, dtype) -> np.ndarray:
    """The array that lies at an address."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = memoryview((ctypes.c_char * size).from_address(address))
    return np.frombuffer(memory, dtype).reshape(shape)


class FakeCuda:
    """cuda.Cuda in host memory; counts what is moved."""

    name = "Fake"
    arch = "sm90"
    stream = 1

    def __init__(self, total: int = 2**30):
        self.total = total
        self.held: dict[int, np.ndarray] = {}
        self.queue: list = []
        self.moved: list[int] = []
        self.captures = self.launches = 0

    def close(self):
        """Its stream is given back; memory is counted in `held`."""

    def memory(self):
        return self.total - sum(m.nbytes for m in self.held.values()), self.total

    def allocate(self, size):
        memory = np.full(size, 0xFF, np.uint8)  # NaN in every float format
        self.held[memory.ctypes.data] = memory
        return memory.ctypes.data

    def release(self, address):
        self.synchronise()  # as cudaFree does
        del self.held[address]

    def clear(self, address, size):
        self.queue.append(lambda: ctypes.memset(address, 0, size))

    def upload(self, address, array):
        assert array.flags.c_contiguous
        data = array.tobytes()
        self.moved.append(len(data))
        self.queue.append(lambda: ctypes.memmove(address, data, len(data)))

    def download(self, array, address):
        self.moved.append(array.nbytes)
        self.queue.append(lambda: ctypes.memmove(array.ctypes.data, address, array.nbytes))

    def copy(self, target, source, size):
        self.queue.append(lambda: ctypes.memmove(target, source, size))

    def synchronise(self):
        for work in self.queue:
            work()
        self.queue.clear()

    def capture(self, work):
        self.captures += 1
        before, self.queue = self.queue, []
        work()
        recorded, self.queue = self.queue, before
        return recorded

    def launch(self, graph):
        self.launches += 1
        self.queue.extend(graph)


class FakeSession:
    """trt_session.Session on ONNX Runtime; one profile or two."""

    def __init__(self, cuda: FakeCuda, path: Path, workspace: int):
        self.cuda = cuda
        self.workspace = workspace
        self.runs = 0
        self.epochs, self._shapes = [0, 0], [{}, {}]
        graph = onnx.load(path, load_external_data=False).graph
        self.inputs = {v.name: v.type.tensor_type for v in graph.input}
        self.outputs = {v.name: v.type.tensor_type for v in graph.output}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)

    def has(self, name):
        return name in self.inputs | self.outputs

    def dtype(self, name):
        return onnx.helper.tensor_dtype_to_np_dtype((self.inputs | self.outputs)[name].elem_type)

    def width(self, name):
        return (self.inputs | self.outputs)[name].shape.dim[-1].dim_value

    def in_place(self, output, source):
        return output == f"{source}_out"

    def set_shapes(self, profile, shapes):
        assert shapes.keys() == self.inputs.keys()
        if shapes != self._shapes[profile]:
            self.epochs[profile] += 1
            self._shapes[profile] = dict(shapes)

    def shape(self, profile, name):
        sizes = {}
        for tensor, shape in self._shapes[profile].items():
            for dim, size in zip(self.inputs[tensor].shape.dim, shape, strict=True):
                assert not dim.dim_value or dim.dim_value == size
                sizes[dim.dim_param] = size
        return tuple(d.dim_value or sizes[d.dim_param] for d in self.outputs[name].shape.dim)

    def enqueue(self, profile, addresses, workspace, size):
        assert addresses.keys() == self.inputs.keys() | self.outputs.keys()
        assert size >= self.workspace and workspace in self.cuda.held
        shapes = {n: self.shape(profile, n) for n in self.outputs} | self._shapes[profile]

        def work():
            self.runs += 1
            arrays = {n: view(addresses[n], shapes[n], self.dtype(n)) for n in addresses}
            assert self._session is not None, "closed"
            results = self._session.run(None, {n: arrays[n] for n in self.inputs})
            for name, result in zip(self.outputs, results, strict=True):
                arrays[name][...] = result

        self.cuda.queue.append(work)

    def capturable(self, profile):
        return True

    def close(self):
        self._session = None


class FakeSessions:
    """trt_session.Sessions: opens graphs where plans would lie, keeps no kernels."""

    def __init__(self, cuda: FakeCuda, workspace=500):
        self.cuda = cuda
        self.workspace = workspace
        self.closed = 0

    def __call__(self, plan: Path) -> FakeSession:
        return FakeSession(
            self.cuda, plan, 2 * self.workspace if "step" in plan.name else self.workspace
        )

    def keep(self):
        pass

    def save(self):
        pass

    def close(self):
        self.closed += 1
