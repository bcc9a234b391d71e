"""What exporting large models costs: wall time, memory and bytes, beside a plain copy of the weights.

Checkpoints have the shapes of published models (tests/families/published) and random bfloat16 weights
in shards of 4 GB. Each export runs in a process of its own, in half precision, without validation; the
page cache is emptied of the checkpoint before it, and the disk is synced at its end. The copy reads and
writes the same files in the same way: what it takes is the disk's share. Needs about 50 GB of disk.
Writes benchmarks/results/export.json.

    python -m benchmarks.export [--model InternVL3-1B-hf] [--folder DIR]
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from .files import write_json

TARGET = Path(__file__).parent / "results" / "export.json"
SIZES = {
    "InternVL3-1B-hf": (896, 896),  # four tiles and a thumbnail
    "InternVL2_5-8B": (896, 896),
    "Qwen2.5-VL-7B-Instruct": (1008, 1008),
}
SHARD = 4 * 10**9  # bytes
DTYPE = "float16"


def write_checkpoint(name: str, folder: Path) -> None:
    """Random weights of a published shape, one shard in memory at a time."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForImageTextToText

    from tests.families import published

    published.write(name, folder)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
    tensors = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    index: dict[str, str] = {}
    for n, names in enumerate(_shards(tensors)):
        file = f"model-{n:05d}.safetensors"
        shard = {k: torch.empty(tensors[k].shape, dtype=torch.bfloat16) for k in names}
        for x in shard.values():
            x.normal_(0, 0.02)
        save_file(shard, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names, file)
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)


def _shards(tensors: dict[str, Any]) -> Iterator[list[str]]:
    names, size = [], 0
    for name, x in tensors.items():
        if names and size + 2 * x.numel() > SHARD:
            yield names
            names, size = [], 0
        names.append(name)
        size += 2 * x.numel()
    yield names


def weight_files(folder: Path) -> list[Path]:
    """The checkpoint's shards."""
    return sorted(folder.glob("*.safetensors"))


def forget(folder: Path) -> None:
    """Drop the checkpoint's pages from the page cache, so that reading it is reading the disk."""
    os.sync()
    for path in weight_files(folder):
        with path.open("rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy_seconds(folder: Path, target: Path) -> float:
    """A plain copy of the weights, synced."""
    forget(folder)
    target.mkdir()
    start = time.perf_counter()
    for path in weight_files(folder):
        shutil.copyfile(path, target / path.name)
    os.sync()
    seconds = time.perf_counter() - start
    shutil.rmtree(target)
    return seconds


class Memory(threading.Thread):
    """Peaks of this process's anonymous and whole resident memory, in MiB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.anonymous = self.resident = 0.0

    def run(self) -> None:
        """Until the process ends."""
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            values = dict(line.split(":", 1) for line in lines)
            now = {k: int(values[k].split()[0]) / 1024 for k in ("RssAnon", "VmHWM")}
            self.anonymous = max(self.anonymous, now["RssAnon"])
            self.resident = now["VmHWM"]
            time.sleep(0.02)


def export_once(name: str, folder: Path, output: Path) -> dict[str, Any]:
    """Export in this process -> seconds of every step and peaks of memory."""
    from luvc.exporter import ExportConfig, export

    memory = Memory()
    memory.start()
    marks: list[tuple[str, float]] = []
    config = ExportConfig.make(
        model=str(folder),
        output=output,
        ratio=2,
        image_sizes=(SIZES[name],),
        dtype=DTYPE,
        check=False,
    )
    start = time.perf_counter()
    bundle = export(config, lambda step: marks.append((step, time.perf_counter() - start)))
    os.sync()
    end = time.perf_counter() - start
    starts = [t for _, t in marks] + [end]
    steps = {step: round(starts[i + 1] - t, 2) for i, (step, t) in enumerate(marks)}
    return {
        "seconds": round(end, 2),
        "steps_s": steps,
        "anonymous_mib": round(memory.anonymous),
        "resident_mib": round(memory.resident),
        "bytes_written": sum(p.stat().st_size for p in output.rglob("*") if p.is_file()),
        "parameters": bundle.manifest.parameters,
        "visual_tokens": [s.visual for s in bundle.manifest.layouts[0].stages],
    }


def child(*arguments: str) -> str:
    """This file in a process of its own -> the last line that it prints."""
    command = [sys.executable, "-m", "benchmarks.export", *arguments]
    return subprocess.check_output(command, text=True).splitlines()[-1]


def measure(name: str, place: Path) -> dict[str, Any]:
    """Checkpoint, copy, export; the files are gone afterwards."""
    folder, output = place / name, place / "bundle"
    try:
        print(f"{name}: writing random weights")
        child("--model", name, "--folder", str(place), "--part", "checkpoint")
        print(f"{name}: copying")
        copied = copy_seconds(folder, place / "copy")
        print(f"{name}: exporting")
        forget(folder)
        start = time.perf_counter()
        text = child("--model", name, "--folder", str(place), "--part", "export")
        process = time.perf_counter() - start
        found = {"checkpoint_bytes": sum(p.stat().st_size for p in weight_files(folder))}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(output, ignore_errors=True)
    values = json.loads(text)
    own = round(values["seconds"] - copied, 2)
    return (
        found
        | values
        | {"process_s": round(process, 2), "copy_s": round(copied, 2), "without_disk_s": own}
    )


def main(
    model: Annotated[list[str] | None, typer.Option(help="Default: all three.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where checkpoints may lie.")] = None,
    part: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure and write the results."""
    from luvc.tools.bench.machine import provenance

    names = model or list(SIZES)
    if part:
        assert folder is not None
        place, found = folder / names[0], {}
        if part == "checkpoint":
            write_checkpoint(names[0], place)
        else:
            found = export_once(names[0], place, folder / "bundle")
        print(json.dumps(found))
        return
    report = provenance("python -m benchmarks.export") | {"dtype": DTYPE, "ratio": 2, "models": {}}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for name in names:
            report["models"][name] = found = measure(name, Path(place))
            print(json.dumps(found, indent=1))
    write_json(TARGET, report)
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    typer.run(main)
