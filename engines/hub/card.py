"""The model card of a bundle: README.md with the hub's tags, all of it from the bundle itself.

It holds no figure that the manifest or a report of the bundle does not hold.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from ... import strict_json
from ..bundle.contents import REPORT
from ..bundle.folder import Bundle
from ..bundle.layout import Layout
from ..bundle.license import License
from ..bundle.manifest import Manifest
from ..bundle.readme import sealed
from ..validate import Report

USE = """from luvc.engines import VLM

vlm = VLM.from_pretrained({place})
{shown}text = {{"type": "text", "text": "{question}"}}
print(vlm.generate([{{"role": "user", "content": [{parts}text]}}], max_new_tokens=64).text)"""


def card(bundle: Bundle, place: str) -> str:
    """The page.

    Args:
        bundle: that it tells of.
        place: its hub id, or the name of its folder.

    Raises:
        LuvcError: a report or the license in the bundle was changed.
    """
    m = bundle.manifest
    first = m.layouts[0]
    sizes = [x for x in m.layouts if x.asked_size == first.asked_size and x.images == first.images]
    ratios = ", ".join(dict.fromkeys(f"{x.ratios.prefill:.2f}x" for x in sizes))
    title = f"{_plain(model_name(m).rpartition('/')[2])} at {ratios}"
    blocks = [
        f"---\n{front_matter(bundle)}\n---",
        f"# {title}",
        _summary(m),
        "## Use",
        "With luvc-export installed:",
        f"```python\n{_use(m, place)}\n```",
        "## What is compressed",
        *_compressed(m),
        "## How far it was validated",
        *_validated(m, _reports(bundle)),
    ]
    return sealed("\n\n".join(blocks))


def front_matter(bundle: Bundle) -> str:
    """The YAML that the hub reads: library, task, tags, and base model and license where they are known."""
    from huggingface_hub import ModelCardData

    m, terms = bundle.manifest, License.of(bundle)
    videos = all(layout.frames for layout in m.pictured)
    data = ModelCardData(
        library_name="luvc-export",
        pipeline_tag="video-text-to-text" if videos else "image-text-to-text",
        tags=["luvc", "onnx", "vision-language-model", m.family],
        base_model=None if m.revision is None else m.model,  # a directory has no commit
        **(terms.model_dump(exclude_none=True) if terms else {}),
    )
    return data.to_yaml(line_break="\n").strip()


def model_name(manifest: Manifest) -> str:
    """The checkpoint's hub id, or the last part of its path: where it lay is nobody's matter."""
    local = manifest.revision is None and Path(manifest.model).is_absolute()
    return Path(manifest.model).name or manifest.family if local else manifest.model


def _summary(m: Manifest) -> str:
    commit = f" (commit {_code(m.revision)})" if m.revision else ""
    version = m.versions.get("luvc-export", "")
    return (
        f"{_code(model_name(m))}{commit} as ONNX graphs, in which visual tokens are left out on the way: "
        f"{m.parameters:,} parameters in {m.dtype}, compiled by luvc-export {_plain(version)} on "
        f"{_plain(m.created[:10])}. A conversation holds {m.text_capacity} text tokens."
    )


def _use(m: Manifest, place: str) -> str:
    """Python that asks it something, about as many pictures as its first layout takes."""
    first = m.layouts[0]
    kind = "video" if first.frames else "image"
    file = "frames" if first.frames else "photo.png"
    shown = f'{kind} = {{"type": "{kind}", "{kind}": "{file}"}}\n' if first.images else ""
    parts = f"{kind}, " * first.images
    question = f"What is in the {'video' if first.frames else 'picture'}?"
    return USE.format(place=repr(place), shown=shown, parts=parts, question=question)


def _compressed(m: Manifest) -> Iterable[str]:
    method = f"method {_code(m.solver.method)}" if m.solver else "a schedule of its own"
    scores = dict.fromkeys(str(x.schedule.score) for x in m.layouts if x.schedule.scored)
    kept = f", visual tokens kept by score {' or '.join(map(_code, scores))}" if scores else ""
    yield f"By {method}{kept}."
    rows = [_row(layout) for layout in m.layouts]
    names = "layout", "pictures", "visual tokens", "from layer on", "prefill", "vision", "both"
    yield _table(names, rows)
    yield (
        "Visual tokens as the model has them and as they enter the language model, then how many are left "
        f"from a layer on. Ratios are baseline / compressed FLOPs at {m.reference_text} text tokens."
    )


def _row(layout: Layout) -> list[str]:
    size = "x".join(map(str, layout.image_size))
    frames = f" of {layout.frames} frames" if layout.frames else ""
    left = ", ".join(f"{p.layer}: {p.keep}" for p in layout.schedule.language) or "all"
    ratios = layout.ratios
    return [
        layout.name,
        f"{layout.images} of {size}{frames}" if layout.images else "none",
        f"{layout.baseline_visual_tokens} -> {layout.visual_tokens}",
        left,
        *(f"{ratio:.2f}x" for ratio in (ratios.prefill, ratios.vision, ratios.both)),
    ]


def _validated(m: Manifest, reports: list[Report]) -> Iterable[str]:
    if m.validated:
        yield f"At export, ONNX Runtime against PyTorch, all {m.language.layers} language layers."
    elif m.validated_layers:
        yield (
            f"At export, ONNX Runtime against PyTorch, the first {m.validated_layers} of "
            f"{m.language.layers} language layers, which is what memory held."
        )
    else:
        yield "Not validated: `luvc-validate` compares it with PyTorch."
    if reports:
        names = (
            "layout",
            "backend",
            "largest relative error",
            "kept tokens in common",
            "greedy tokens",
        )
        yield _table(names, [_report_row(report) for report in reports])
    yield (
        "This says that the graphs compute what PyTorch computes under the same compression, and nothing of "
        "its answers beside the unmodified model's: `luvc-eval` counts those on your own questions."
    )


def _report_row(report: Report) -> list[str]:
    kept = [k.overlap for k in report.kept]
    return [
        _code(report.layout),
        _code(report.backend),
        f"{max(stage.relative_error for stage in report.stages):.1e}",
        f"{min(kept):.2%}" if kept else "",
        f"{report.greedy_equal} of {report.greedy_tokens} equal",
    ]


def _reports(bundle: Bundle) -> list[Report]:
    """The listed reports of the bundle's own layouts, in their order."""
    listed = [
        n for n in bundle.manifest.files if re.fullmatch(rf"{REPORT}/validation-[^/]+\.json", n)
    ]
    found = [strict_json.read_as(Report, bundle.file(n), "luvc-validate") for n in sorted(listed)]
    order = [layout.name for layout in bundle.manifest.layouts]
    return sorted((r for r in found if r.layout in order), key=lambda r: order.index(r.layout))


def _table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(names), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Words without what Markdown and HTML read."""
    return re.sub(r"[^\w .,:+/()@-]", "", text)


def _code(text: str) -> str:
    """Words that nothing is read into."""
    return f"`{re.sub(r'[`|<>]', '', text)}`"
