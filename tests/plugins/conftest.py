"""What the plugin tests share: the kernels on the host, and the TensorRT test aid."""

import ctypes
import faulthandler
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock

from luvc.plugins import nvrtc
from luvc.plugins.launch import Launch
from luvc.plugins.nvrtc import SOURCES

HERE = Path(__file__).parent
BARRIER = "__syncthreads();"
TENSORRT_AID = ("tensorrt_cu13_bindings==11.4.0.106", "tensorrt_lean_cu13_libs==11.4.0.106")


class Emulator:
    """Builds kernels as shared libraries, each once, and launches them."""

    def __init__(self, folder: Path, compiler: str):
        self.folder = folder
        self.compiler = compiler
        self.libraries = {}

    def build(self, launch: Launch, kernels: Path | None = None) -> ctypes.CDLL:
        """The library of one launch; `kernels` may hold a changed copy of the sources."""
        source = kernels / launch.source if kernels else SOURCES[launch.source]
        options = [f"-DENTRY={launch.entry}", f'-DSOURCE="{source}"']
        options += [f"-D{name}={value}" for name, value in launch.macros]
        name = hashlib.sha256(" ".join(options).encode()).hexdigest()[:16]
        if name not in self.libraries:
            path = self.folder / f"{name}.so"
            flags = ["-std=c++17", "-O1", "-w", "-shared", "-fPIC"]
            command = [self.compiler, *flags, *options, str(HERE / "host.cpp"), "-o", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            self.libraries[name] = ctypes.CDLL(str(path))
        return self.libraries[name]

    def build_all(self, launches) -> None:
        """Builds many launches on two cores, each library once: the grid is no part of it."""
        libraries = {(launch.entry, launch.macros): launch for launch in launches}
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self.build, libraries.values()))

    def run(self, launch: Launch, grid, inputs, scalars, outputs, kernels=None, backwards=False):
        """Runs the grid (x, y, z) on the kernel's inputs, int32 scalars and outputs."""
        library = self.build(launch, kernels)
        assert all(array.flags.c_contiguous for array in (*inputs, *outputs))
        values = [ctypes.c_void_p(array.ctypes.data) for array in inputs]
        values += [ctypes.c_int(scalar) for scalar in scalars]
        values += [ctypes.c_void_p(array.ctypes.data) for array in outputs]
        addresses = (ctypes.c_void_p * len(values))(*[ctypes.addressof(v) for v in values])
        if library.launch(addresses, *grid, launch.threads, int(backwards)):
            raise RuntimeError(f"{launch.source}: threads of a block wait for each other")

    @staticmethod
    def passes_both_ways(check) -> bool:
        """Whether check(backwards) holds in both fiber orders; a child runs it, as it may crash."""
        child = os.fork()
        if child == 0:
            faulthandler.disable()
            signal.alarm(30)
            with suppress(Exception):
                check(False)
                check(True)
                os._exit(0)
            os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    @staticmethod
    def without_each_barrier(source: str, folder: Path):
        """Copies of the kernels with one barrier of `source` taken out: (line, folder) each."""
        text = SOURCES[source].read_text()
        places = [match.start() for match in re.finditer(re.escape(BARRIER), text)]
        assert places
        for number, place in enumerate(places):
            copy = folder / str(number)
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(SOURCES[source].parent, copy, ignore=ignored)
            (copy / source).write_text(text[:place] + text[place + len(BARRIER) :])
            yield text[:place].count("\n") + 1, copy


def open_driver() -> ctypes.CDLL | None:
    """The CUDA driver, when this machine has one and a GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return driver if driver.cuInit(0) == 0 else None


DRIVER = open_driver()


class Gpu:
    """Compiles kernels to PTX and launches them on the first GPU; `run` as in Emulator."""

    def __init__(self):
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)

    def call(self, name, *arguments):
        status = getattr(DRIVER, name)(*arguments)
        assert status == 0, f"{name} returned CUDA error {status}"

    def build_all(self, launches) -> None:
        """Nothing: PTX compiles in a moment."""

    def load(self, launch: Launch) -> ctypes.c_void_p:
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        ptx = nvrtc.compile_launch(launch).encode()
        self.call("cuModuleLoadData", ctypes.byref(module), ptx)
        self.call("cuModuleGetFunction", ctypes.byref(function), module, launch.entry.encode())
        return function

    def upload(self, array) -> ctypes.c_uint64:
        address, size = ctypes.c_uint64(), ctypes.c_size_t(array.nbytes)
        self.call("cuMemAlloc_v2", ctypes.byref(address), size)
        self.call("cuMemcpyHtoD_v2", address, ctypes.c_void_p(array.ctypes.data), size)
        return address

    def run(self, launch: Launch, grid, inputs, scalars, outputs):
        function = self.load(launch)
        buffers = [self.upload(array) for array in (*inputs, *outputs)]
        values = buffers[: len(inputs)] + [ctypes.c_int(scalar) for scalar in scalars]
        values += buffers[len(inputs) :]
        addresses = (ctypes.c_void_p * len(values))(*[ctypes.addressof(v) for v in values])
        sizes = [ctypes.c_uint(size) for size in (*grid, launch.threads, 1, 1, 0)]
        self.call("cuLaunchKernel", function, *sizes, None, addresses, None)
        self.call("cuCtxSynchronize")
        for array, buffer in zip(outputs, buffers[len(inputs) :], strict=True):
            size = ctypes.c_size_t(array.nbytes)
            self.call("cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), buffer, size)
        for buffer in buffers:
            self.call("cuMemFree_v2", buffer)


@pytest.fixture(scope="session", params=["host", "gpu"] if DRIVER else ["host"])
def machine(request):
    """What runs the kernels: the emulation, and the GPU where there is one."""
    return Gpu() if request.param == "gpu" else request.getfixturevalue("emulator")


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        pytest.skip(f"no C++ compiler {compiler} to build the kernels for the host")
    return Emulator(tmp_path_factory.mktemp("kernels"), compiler)


def fetch_aid(folder: Path) -> None:
    """Install the TensorRT test aid into a folder; skips where that cannot be done."""
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade"]
    install += ["--target", str(folder), *TENSORRT_AID]
    seconds = 240  # a second process may wait for this one and then try itself
    try:
        done = subprocess.run(install, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"fetching the TensorRT test aid took more than {seconds} s")
    if done.returncode:
        pytest.skip(f"the TensorRT test aid cannot be fetched: {done.stderr[-300:]}")
    (folder / "complete").touch()


@pytest.fixture(scope="session")
def tensorrt_aid(request):
    """Folder with TensorRT's Python bindings and lean runtime: 45 MB, no part of this project.

    It is the one named in LUVC_TENSORRT_AID, or fetched from the package index once and cached.
    """
    if not sys.platform.startswith("linux") or shutil.which("g++") is None:
        pytest.skip("the TensorRT test aid needs Linux and g++")
    given = os.environ.get("LUVC_TENSORRT_AID")
    if given:
        return Path(given)
    folder = Path(request.config.cache.mkdir("tensorrt-aid-11.4.0.106"))
    with FileLock(folder.with_name(f"{folder.name}.lock")):  # test processes share the folder
        if not (folder / "complete").exists():
            fetch_aid(folder)
    return folder
