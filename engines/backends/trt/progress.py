"""Progress of a build: TensorRT's nested phases as one share between 0 and 1."""

from typing import Any

from ..base import Progress


class Phases:
    """The open phases of one build, outermost first: name -> [steps done, steps in all]."""

    def __init__(self):
        self.open: dict[str, list[int]] = {}

    @property
    def share(self) -> float:
        """Share done: a phase's finished steps, and inside its current step that of its child."""
        share = 0.0
        for done, total in reversed(self.open.values()):
            share = min(1.0, (done + share) / max(total, 1))
        return share


def make_monitor(trt: Any, graph: str, progress: Progress) -> Any:
    """An IProgressMonitor that calls `progress`; Ctrl-C or SIGTERM in it stops the build."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self):
            super().__init__()
            self.phases = Phases()
            self.interrupted: BaseException | None = None

        def phase_start(self, name, parent, steps):
            self.phases.open[name] = [0, steps]
            self._tell(name)

        def step_complete(self, name, step):
            if name in self.phases.open:
                self.phases.open[name][0] = step + 1
            self._tell(name)
            return self.interrupted is None

        def phase_finish(self, name):
            self.phases.open.pop(name, None)
            self._tell(name)

        def _tell(self, name: str) -> None:
            # an exception must not travel through the library's own frames
            try:
                progress(graph, name, self.phases.share)
            except (KeyboardInterrupt, SystemExit) as e:
                self.interrupted = e

    return Monitor()
