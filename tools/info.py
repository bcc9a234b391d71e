"""luvc-info: what a bundle is, read from its manifest alone."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from .. import console
from .options import AsJson, BundleFolder

if TYPE_CHECKING:
    from ..engines.bundle.folder import Bundle
    from ..engines.bundle.layout import Layout
    from ..engines.bundle.manifest import Engine, Manifest


def info(
    bundle: BundleFolder,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every file's SHA-256 with the manifest.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a bundle holds and how far it was validated; needs no checkpoint and no PyTorch."""
    from ..engines.bundle.folder import Bundle

    loaded = Bundle.load(bundle)
    found: dict[str, Any] = {**facts(loaded), "verified": verify}
    if verify:
        with console.Steps(quiet=as_json) as steps:
            steps(f"comparing the SHA-256 of {found['files']} files, {decimal(found['bytes'])}")
            Bundle.load(bundle, verify=True)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    console.show(Text(found["bundle"], style="bold"))
    for name, value in _summary(found).items():
        console.show(Text(f"  {name:<10} {value}"))
    console.show(_layout_table(found["layouts"]))
    console.show(f"ratios: baseline / compressed FLOPs at {found['reference_text']} text tokens")
    if found["engines"]:
        console.show(_engine_table(found["engines"]))


def facts(bundle: "Bundle") -> dict[str, Any]:
    """The manifest without what only a runtime reads, with sizes in bytes.

    `files` is their number; an engine's `batch` is (fewest, usual, most) conversations.
    """
    from ..engines.bundle.folder import WEIGHTS

    m = bundle.manifest
    return {
        "bundle": str(bundle.path),
        "bytes": sum(f.bytes for f in m.files.values()),
        "weights_bytes": m.files[WEIGHTS].bytes,
        "files": len(m.files),
        **m.model_dump(mode="json", exclude={"files", "layouts", "engines"}),
        "layouts": [_layout(m, layout) for layout in m.layouts],
        "engines": [_engine(m, engine) for engine in m.engines],
    }


def _layout(m: "Manifest", layout: "Layout") -> dict[str, Any]:
    shown = layout.model_dump(mode="json", exclude={"graphs", "processor_options", "expansion"})
    return shown | {"cache_bytes": m.kv_bytes(layout)}


def _engine(m: "Manifest", engine: "Engine") -> dict[str, Any]:
    batch = next(p["B"] for f in engine.graphs for p in f.profiles if "B" in p)
    size = sum(m.files[f.file].bytes for f in engine.graphs)
    return engine.model_dump(mode="json", exclude={"graphs"}) | {"batch": batch, "bytes": size}


def _summary(found: dict[str, Any]) -> dict[str, str]:
    """One line each about the bundle as a whole."""
    text_model = found["language"]["model_type"]
    engines = f"{len(found['engines'])}, below"
    if not found["engines"]:
        engines = "none; it runs on ONNX Runtime"
        if found["dtype"] == "bfloat16":
            engines = "none, and ONNX Runtime does not run bfloat16: build them with luvc-build"
    size = f"{decimal(found['bytes'])} in {found['files']} files"
    return {
        "model": f"{found['model']} ({found['family']}, language model {text_model})",
        "weights": f"{found['parameters']:,} parameters in {found['dtype']}, "
        f"{decimal(found['weights_bytes'])}",
        **_products(found),
        **_checkpoint(found),
        "text": f"{found['text_capacity']} tokens for the prompts and answers of a conversation",
        "method": _method(found["solver"]),
        "keeps": _scores(found["layouts"]),
        **_merges(found["layouts"]),
        "validated": _validated(found),
        "engines": engines,
        "size": size + ", SHA-256 as the manifest says" * found["verified"],
        "made": f"{found['created']} by luvc-export {found['versions'].get('luvc-export', '?')}",
    }


def _products(found: dict[str, Any]) -> dict[str, str]:
    """How the language model's products are stored and computed; nothing where they are as the rest."""
    from ..engines.backends.ort.quantised import kernels
    from ..engines.bundle.manifest import Quantisation

    if found["weights"] is None:
        return {}
    how = Quantisation.model_validate(found["weights"])
    run = kernels(how, found["dtype"] == "float32")
    where = "in the language model and its head"
    if found["quantised_as"]:
        where = "as in the checkpoint"
    if found["calibrated"]:
        where += f", calibrated on {found['calibrated']} questions"
    told = {"products": f"{how}, {where}"}
    return told | ({"on a CPU": run} if found["dtype"] != "bfloat16" else {})


def _checkpoint(found: dict[str, Any]) -> dict[str, str]:
    """What the weights were before; nothing where the checkpoint was not quantised."""
    before = found["quantised_as"]
    if not before:
        return {}
    became = (
        "products kept as they are, others made numbers" if found["weights"] else "made numbers"
    )
    return {"from": f"{before}; {became}"}


def _method(solver: dict[str, Any] | None) -> str:
    """What the schedules were made by."""
    if not solver:
        return "a schedule of one's own"
    counted = {
        "first-token": "; ratios asked are of the first token, tower and prefill",
        "latency": "; ratios asked are of the prefill's measured time",
        "first-token-latency": "; ratios asked are of the first token's measured time",
    }
    return solver["method"] + counted.get(solver["ratio_of"], "")


def _validated(found: dict[str, Any]) -> str:
    """Whether export compared it with PyTorch, and how much of it."""
    layers, compared = found["language"]["layers"], found["validated_layers"]
    how = "at export, ONNX Runtime against PyTorch"
    if found["validated"]:
        return f"{how}, all {layers} language layers"
    if compared:
        return f"{how}, the first {compared} of {layers} language layers, which is what memory held"
    return "no; luvc-validate compares it with PyTorch"


def _layout_table(layouts: list[dict[str, Any]]) -> Table:
    """Sizes, ratios, and visual tokens at ratio 1, into the language model and in its layers."""
    table = Table("layout", "takes")
    for name in ("asked", "prefill", "vision", "both"):
        table.add_column(name, justify="right")
    for name in ("visual tokens", "by language layer"):
        table.add_column(name)
    table.add_column("caches, MiB", justify="right")
    for x in layouts:
        ratios = [f"{x['ratios'][part]:.2f}x" for part in ("prefill", "vision", "both")]
        stages = ", ".join(f"{s['first']}-{s['last']}: {s['visual']}" for s in x["stages"])
        tokens = f"{x['baseline_visual_tokens']} -> {x['visual_tokens']}"
        caches = f"{x['cache_bytes'] / 2**20:.1f}"
        table.add_row(x["name"], _takes(x), _asked(x["schedule"]), *ratios, tokens, stages, caches)
    return table


def _takes(layout: dict[str, Any]) -> str:
    """Which pictures a layout is for, sizes as HEIGHTxWIDTH."""
    count = layout["images"]
    frames = layout["frames"]
    tiles = layout["tiles"]
    if not count:
        return "no image"
    kind = ("video" if frames else "image") + "s" * (count > 1)
    text = f"{count} {kind} of " + f"{frames} frames of " * (frames > 0)
    text += "x".join(map(str, layout["image_size"]))
    if layout["baseline_size"]:
        text += " in place of " + "x".join(map(str, layout["baseline_size"]))
    if layout["frames_as_images"] and count > 1:
        text += ", or a video"
    return text + (f" in {tiles} tiles" if tiles > 1 and not frames else "")


def _asked(schedule: dict[str, Any]) -> str:
    """The ratio that was asked for; a schedule of one's own may name none."""
    from ..engines.bundle.schedule import Schedule

    return "a schedule" if Schedule.model_validate(schedule).own else f"{schedule['ratio']:g}x"


def _scores(layouts: list[dict[str, Any]]) -> str:
    """What the SPU keeps visual tokens by, of every layout that has a choice."""
    from ..engines.bundle.schedule import Schedule

    schedules = [Schedule.model_validate(x["schedule"]) for x in layouts]
    scores = dict.fromkeys(str(s.score) for s in schedules if s.scored)
    grids = dict.fromkeys(
        f"a grid of {s.exit.rows}x{s.exit.columns} visual tokens of each tile, by {s.exit.how}"
        for s in schedules
        if s.exit
    )
    kept = [*(f"visual tokens, by score {score}" for score in scores), *grids]
    return " or ".join(kept) or "no visual token is scored"


def _merges(layouts: list[dict[str, Any]]) -> dict[str, str]:
    """Where OIM merges in the vision tower, and how; nothing where it does nowhere."""
    from ..engines.bundle.schedule import Schedule

    told: dict[str, None] = {}
    for s in (Schedule.model_validate(x["schedule"]) for x in layouts):
        if s.vision:
            places = ", ".join(map(str, dict.fromkeys(m.layer for m in s.vision)))
            how = "the most similar neighbours" if s.match else "fixed groups"
            back = "; the tower's exit gives the grid back" if s.restore else ""
            told[f"{how} in the vision tower before layers {places}{back}"] = None
    return {"merges": " or ".join(told)} if told else {}


def _engine_table(engines: list[dict[str, Any]]) -> Table:
    """What was compiled, and for what."""
    table = Table("engine", "GPU", "library version", "batch", "plugins", "size")
    for x in engines:
        low, _, high = x["batch"]
        batch = f"{low} to {high}" if high > low else str(high)
        table.add_row(
            x["backend"], x["arch"], x["version"], batch, x["plugins"], decimal(x["bytes"])
        )
    return table


def main() -> None:
    """Entry point."""
    console.run_command(info)


if __name__ == "__main__":
    main()
