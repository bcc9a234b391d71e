"""Builds a bundle's engines with TensorRT or TensorRT-RTX and lists them in the manifest.

An engine whose key (all that shapes it) is in the manifest already is not built again.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from ...errors import LuvcError
from ...plugins.spectrum import nvrtc
from ...plugins.spectrum import tensorrt as spu_plugins
from ..bundle import WEIGHTS, Bundle, sha256
from ..engine_files import find, store, working_folder
from ..manifest import Engine, EngineFile, Layout, Range
from ..replace import check_space
from . import trt_graph
from .cuda import Cuda
from .trt_library import PORTABLE, Library, make_log
from .trt_progress import Progress, make_monitor, silent

PLUGIN_LIBRARY = "LUVC_PLUGIN_LIBRARY"  # environment: path of the C++ plugin library


@dataclass(frozen=True)
class BuildOptions:
    """How engines are built.

    Attributes:
        batch: fewest, usual and most conversations in one batch.
        plugin_form: SPU operators as "aot" plugins, as plugins of a C++ "library", or as their
            function "body"; TensorRT-RTX always runs the body.
        plugin_library: the C++ library, for the form "library".
        memory_gib: most device memory one layer may use as scratch; None sets no limit.
        targets: TensorRT-RTX only: architectures such as "sm89"; empty builds a portable engine.
    """

    batch: Range = (1, 1, 8)
    plugin_form: Literal["aot", "library", "body"] = "aot"
    plugin_library: Path | None = None
    memory_gib: float | None = None
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """One engine of a build; `seconds` is None when it was up to date."""

    graph: str
    file: str
    bytes: int
    seconds: float | None


def build(
    library: Library, bundle: Bundle, options: BuildOptions, progress: Progress = silent
) -> tuple[Bundle, list[Built]]:
    """Build what is missing or out of date.

    Args:
        library: TensorRT or TensorRT-RTX.
        bundle: a loaded bundle; its folder must be writable.
        options: how.
        progress: called with (graph, phase, share done from 0 to 1).

    Returns:
        The bundle with its engines listed, and what was done for each graph.

    Raises:
        LuvcError: the bundle's dtype, a graph or the machine does not allow it; names the node.
    """
    return _Build(library, bundle, options, progress).run()


class _Build:
    def __init__(self, library: Library, bundle: Bundle, options: BuildOptions, progress: Progress):
        self.library, self.bundle, self.options, self.progress = library, bundle, options, progress
        _check_options(library, bundle, options)
        self.form = options.plugin_form if library.plugins else "body"
        self.trt = library.load()
        self.polygraphy = library.polygraphy()
        self.arch = _arch(library, options)
        if self.form != "body":
            register_plugins(self.form, options.plugin_library)
        self.engine = Engine(
            backend=library.name, arch=self.arch, version=library.version, plugins=self.form,
            graphs=(),
        )  # fmt: skip

    def run(self) -> tuple[Bundle, list[Built]]:
        """Build, store and list."""
        wanted = [self._wanted(layout, g) for layout, g in _graphs(self.bundle)]
        listed = find(self.bundle.manifest, self.engine)
        present = {p.graph: p for p in listed.graphs} if listed else {}
        intact = self.bundle.intact
        stale = [w for w in wanted if present.get(w.graph) != w or not intact(w.file)]
        built: dict[str, float] = {}
        if stale:
            weights = self.bundle.manifest.files[WEIGHTS].bytes  # prefill and step hold them both
            check_space(self.bundle.path, 2 * weights * len(self.bundle.manifest.layouts))
            with working_folder(self.bundle) as work:
                for file in stale:
                    start = perf_counter()
                    self._build(file, work / Path(file.file).name)
                    built[file.graph] = perf_counter() - start
                engine = self.engine.model_copy(update={"graphs": tuple(wanted)})
                self.bundle = store(self.bundle, engine, work)
        files = self.bundle.manifest.files
        done = [Built(w.graph, w.file, files[w.file].bytes, built.get(w.graph)) for w in wanted]
        return self.bundle, done

    def _wanted(self, layout: Layout, graph: str) -> EngineFile:
        """Check a graph -> what its engine will be, with the key of all that shapes it."""
        model = trt_graph.read_graph(self.bundle, graph)
        registry = self.trt.get_plugin_registry()
        trt_graph.check_operators(model, graph, registry, self.library.plugins)
        trt_graph.check_stages(model, graph, layout)
        manifest, options = self.bundle.manifest, self.options
        heads = trt_graph.query_heads(model)
        profiles = trt_graph.profiles(manifest, layout, graph, options.batch, heads)
        folder = Path(graph).parent
        read = [
            graph,
            *((folder / f).as_posix() for f in sorted(set(trt_graph.external_files(model)))),
        ]
        parts = {
            "files": {name: manifest.files[name].sha256 for name in read},
            "library": [self.library.name, self.engine.version, self.arch],
            "profiles": profiles,
            "memory_gib": options.memory_gib,
            "plugins": [self.form, _plugins_hash(self.form, options.plugin_library)],
        }
        return EngineFile(
            graph=graph,
            file=f"{self.engine.folder}/{Path(graph).stem}.plan",
            key=hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(),
            profiles=profiles,
        )

    def _build(self, file: EngineFile, target: Path) -> None:
        """Parse and build one graph, write its plan."""
        trt, log = self.trt, make_log(self.trt)
        builder = trt.Builder(log)
        strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(strongly_typed)
        parser = trt.OnnxParser(network, log)
        if not parser.parse_from_file(str(self.bundle.file(file.graph))):
            raise LuvcError(
                f"{self.library.title} does not accept {file.graph}: {_findings(parser)}"
            )
        monitor = make_monitor(trt, file.graph, self.progress)
        config = self._config(file, monitor)
        timing = _timing_cache(self.library, self.engine)
        make = self.polygraphy.engine_bytes_from_network
        try:
            plan = make((builder, network, parser), config=config, save_timing_cache=timing)
        except Exception as error:
            if monitor.interrupted:
                raise KeyboardInterrupt from error
            reason = log.last() or str(error)
            raise LuvcError(f"{self.library.title} cannot build {file.graph}: {reason}") from error
        with target.open("wb") as f:
            f.write(plan)
        self.progress(file.graph, "written", 1.0)

    def _config(self, file: EngineFile, monitor: Any) -> Any:
        """Polygraphy's builder configuration: profiles, memory, timing cache, targets."""
        model = trt_graph.read_graph(self.bundle, file.graph)
        profiles = []
        for sizes in file.profiles:
            profile = self.polygraphy.Profile()
            for name, shapes in trt_graph.input_shapes(model, sizes, file.graph).items():
                profile.add(name, *shapes)
            profiles.append(profile)
        common: dict[str, Any] = {"profiles": profiles, "progress_monitor": monitor}
        if self.options.memory_gib is not None:
            limit = int(self.options.memory_gib * 2**30)
            common["memory_pool_limits"] = {self.trt.MemoryPoolType.WORKSPACE: limit}
        if self.library.builds_without_gpu:
            from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

            numbers = [(int(t[2:-1]), int(t[-1])) for t in self.options.targets]
            return CreateConfigRTX(compute_capabilities=numbers or None, **common)
        timing = _timing_cache(self.library, self.engine)
        return self.polygraphy.CreateConfig(load_timing_cache=timing, **common)


def check_machine(library: Library) -> None:
    """Refuse a machine that cannot build engines.

    Raises:
        LuvcError: the library or Polygraphy is not installed, or there is no GPU and it needs one.
    """
    library.load()
    library.polygraphy()
    if not library.builds_without_gpu:
        Cuda()


def _graphs(bundle: Bundle) -> list[tuple[Layout, str]]:
    layouts = bundle.manifest.layouts
    return [(layout, graph) for layout in layouts for graph in layout.graphs.model_dump().values()]


def _check_options(library: Library, bundle: Bundle, options: BuildOptions) -> None:
    low, usual, high = options.batch
    if not 1 <= low <= usual <= high:
        raise LuvcError(
            f"batch {low},{usual},{high} must be fewest,usual,most with 1 <= fewest <= usual <= most"
        )
    if bundle.manifest.dtype == "float32":
        raise LuvcError(
            f"{bundle.path} holds float32 weights, and {library.title} has no fused attention for "
            "float32 prompts: export with --dtype fp16 (or bf16)"
        )
    if options.memory_gib is not None and options.memory_gib <= 0:
        raise LuvcError(f"memory limit {options.memory_gib} GiB must be more than 0")
    if options.targets and not library.builds_without_gpu:
        raise LuvcError(
            f"{library.title} builds for the GPU of this machine; --target is for tensorrt-rtx"
        )


def _arch(library: Library, options: BuildOptions) -> str:
    """GPUs the engines will run on, as the manifest names them."""
    if not library.builds_without_gpu:
        return Cuda().arch
    known = [n.lower() for n in library.load().ComputeCapability.__members__ if n.startswith("SM")]
    for target in options.targets:
        if target not in known:
            raise LuvcError(
                f"target {target!r} is not one of {', '.join(known)}; leave --target out for an "
                "engine that runs on compute capability 8.0 and up"
            )
    return "+".join(sorted(set(options.targets))) or PORTABLE


def register_plugins(form: str, path: Path | None) -> None:
    """Make the SPU plugins known to TensorRT.

    Raises:
        LuvcError: the library is missing, or TensorRT is too old.
    """
    if form == "aot":
        spu_plugins.register()
        return
    given = path or os.environ.get(PLUGIN_LIBRARY)
    if given is None:
        raise LuvcError(
            f"the plugin form 'library' needs the C++ library: give --plugin-library or set "
            f"{PLUGIN_LIBRARY}"
        )
    if not spu_plugins.registered():
        spu_plugins.load_library(given)


def _plugins_hash(form: str, path: Path | None) -> str:
    """Hash of the kernel sources or of the library, since both end up in what an engine does."""
    if form == "body":
        return ""
    if form == "library":
        return sha256(Path(path or os.environ[PLUGIN_LIBRARY]))
    sources = sorted(p for p in nvrtc.KERNELS.iterdir() if p.suffix in (".cu", ".cuh"))
    return hashlib.sha256("".join(map(sha256, sources)).encode()).hexdigest()


def _timing_cache(library: Library, engine: Engine) -> str | None:
    """Measured kernel times, shared by all bundles; TensorRT-RTX measures none when it builds."""
    if library.builds_without_gpu:
        return None
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "luvc-export"
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / f"timing-{engine.backend}-{engine.version}-{engine.arch}.bin")


def _findings(parser: Any) -> str:
    """What the parser found wrong, each with its node."""
    lines = []
    for error in map(parser.get_error, range(parser.num_errors)):
        inside = "".join(f" in {name}" for name in error.local_function_stack())
        text = " ".join(error.desc().split())
        lines.append(
            f"node {error.node_name() or error.node()} ({error.node_operator()}){inside}: {text}"
        )
    return "; ".join(dict.fromkeys(lines)) or "the parser gave no reason"
