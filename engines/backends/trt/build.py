"""Builds a bundle's engines with TensorRT or TensorRT-RTX and lists them in the manifest.

An engine whose key (all that shapes it) is in the manifest already is not built again.
"""

import hashlib
import json
import warnings
from pathlib import Path
from time import perf_counter
from typing import Any

from ....errors import LuvcError
from ....plugins import nvrtc
from ...bundle.engine_files import find, store, working_folder
from ...bundle.folder import WEIGHTS, Bundle
from ...bundle.graph_file import external_files, read_graph
from ...bundle.layout import Layout
from ...bundle.manifest import Engine, EngineFile
from ...bundle.swap import check_space
from ..base import BuildOptions, Built, Progress, silent
from . import graph as graph_checks
from .cuda import Cuda
from .library import PORTABLE, Library, make_log
from .plugins import plugins_hash, register_plugins
from .progress import make_monitor
from .timing_cache import TimingCache

RECORDABLE = "REQUIRE_USER_ALLOCATION"  # flag: runs allocate nothing, so a CUDA graph can hold them


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
        self.library = library
        self.bundle = bundle
        self.options = options
        self.progress = progress
        _check_options(library, bundle, options)
        self.form = options.plugin_form if library.plugins else "body"
        self.trt = library.load()
        self.polygraphy = library.polygraphy()
        self.arch = _arch(library, options)
        if library.plugins:
            register_plugins(self.form, options.plugin_library)
        about = {"backend": library.name, "arch": self.arch, "version": library.version}
        self.engine = Engine(**about, plugins=self.form, graphs=())
        self.timing = None if library.builds_without_gpu else TimingCache(self.engine)

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
        model = read_graph(self.bundle, graph)
        registry = self.trt.get_plugin_registry()
        graph_checks.check_operators(model, graph, registry, self.library.plugins)
        graph_checks.check_stages(model, graph, layout)
        manifest, options = self.bundle.manifest, self.options
        heads = graph_checks.query_heads(model)
        profiles = graph_checks.profiles(manifest, layout, graph, options.batch, heads)
        folder = Path(graph).parent
        read = [
            graph,
            *((folder / f).as_posix() for f in sorted(set(external_files(model)))),
        ]
        parts = {
            "files": {name: manifest.files[name].sha256 for name in read},
            "library": [self.library.name, self.engine.version, self.arch],
            "profiles": profiles,
            "memory_gib": options.memory_gib,
            "plugins": [self.form, plugins_hash(self.form, options.plugin_library)],
            "flags": self._flags(graph),
        }
        return EngineFile(
            graph=graph,
            file=f"{self.engine.folder}/{Path(graph).stem}.plan",
            key=hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(),
            profiles=profiles,
        )

    def _flags(self, graph: str) -> dict[str, bool]:
        """Builder flags to set or to clear; Polygraphy's own are right for TensorRT."""
        if not self.library.builds_without_gpu:
            return {}
        flags = {"TF32": False}  # on by default, and the SPU scores in float32
        steps = {layout.graphs.step for layout in self.bundle.manifest.layouts}
        if graph in steps and hasattr(self.trt.BuilderFlag, RECORDABLE):
            flags[RECORDABLE] = True
        return flags

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
        parsed, flags = (builder, network, parser), self._flags(file.graph)
        timing = target.with_suffix(".timing")
        try:
            plan = self._plan(file, parsed, flags, log, timing)
        except LuvcError as error:
            if not flags.pop(RECORDABLE, False):
                raise
            plan = self._plan(file, parsed, flags, log, timing)
            warnings.warn(f"decoding may run without a CUDA graph: {error}", stacklevel=2)
        with target.open("wb") as f:
            f.write(plan)
        if self.timing is not None:
            self.timing.keep(timing)
        self.progress(file.graph, "written", 1.0)

    def _plan(self, file: EngineFile, parsed: tuple, flags: dict[str, bool], log, timing: Path):
        """Build a parsed graph -> the plan's bytes; `timing` is a file for kernel times."""
        monitor = make_monitor(self.trt, file.graph, self.progress)
        cache = None
        if self.timing is not None:
            self.timing.take(timing)
            cache = str(timing)
        config = self._config(file, monitor, flags, cache)
        make = self.polygraphy.engine_bytes_from_network
        try:
            return make(parsed, config=config, save_timing_cache=cache)
        except Exception as error:
            if monitor.interrupted is not None:
                raise monitor.interrupted from error
            reason = log.last() or str(error)
            raise LuvcError(f"{self.library.title} cannot build {file.graph}: {reason}") from error

    def _config(
        self, file: EngineFile, monitor: Any, flags: dict[str, bool], cache: str | None
    ) -> Any:
        """Polygraphy's builder configuration: profiles, memory, flags, timing cache, targets."""
        model = read_graph(self.bundle, file.graph)
        profiles = []
        for sizes in file.profiles:
            profile = self.polygraphy.Profile()
            for name, shapes in graph_checks.input_shapes(model, sizes, file.graph).items():
                profile.add(name, *shapes)
            profiles.append(profile)
        common: dict[str, Any] = {"profiles": profiles, "progress_monitor": monitor}
        if self.options.memory_gib is not None:
            limit = int(self.options.memory_gib * 2**30)
            common["memory_pool_limits"] = {self.trt.MemoryPoolType.WORKSPACE: limit}
        if not self.library.builds_without_gpu:
            return self.polygraphy.CreateConfig(load_timing_cache=cache, **common)
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        def set_flags(builder: Any, network: Any, config: Any) -> None:
            for name, on in flags.items():
                (config.set_flag if on else config.clear_flag)(getattr(self.trt.BuilderFlag, name))

        numbers = [(int(t[2:-1]), int(t[-1])) for t in self.options.targets]
        config = CreateConfigRTX(compute_capabilities=numbers or None, **common)
        return self.polygraphy.PostprocessConfig(config, set_flags)


def check_machine(library: Library) -> None:
    """Refuse a machine that cannot build engines.

    Raises:
        LuvcError: the library, Polygraphy or the plugins' compiler is not installed, or there is no
            GPU and it needs one.
    """
    library.load()
    library.polygraphy()
    if not library.builds_without_gpu:
        Cuda()
    if library.plugins:
        nvrtc.check_version()


def _graphs(bundle: Bundle) -> list[tuple[Layout, str]]:
    """Every graph once, with the first layout that has it."""
    found: dict[str, Layout] = {}
    for layout in bundle.manifest.layouts:
        for graph in layout.graphs.files:
            found.setdefault(graph, layout)
    return [(layout, graph) for graph, layout in found.items()]


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
