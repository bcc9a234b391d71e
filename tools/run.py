"""luvc-run: ask a bundle about pictures."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import console
from ..engines.bundle.layout import Layout
from ..errors import LuvcError
from ..places import check_file
from .options import Backend, BundleFolder, ImageTokens, RatioOption, Threads, wished

if TYPE_CHECKING:
    from ..engines import VLM
    from ..engines.answer import Answer, Stream
    from ..engines.prompt.wishes import Wish

Images = Annotated[list[Path] | None, typer.Option(help="Picture; repeat for several.")]
Videos = Annotated[
    list[Path] | None, typer.Option(help="Folder of frames, animated picture, or file of a video.")
]
LayoutName = Annotated[
    str | None, typer.Option(help="Layout; default the one that fits the pictures.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of the sampling; give --temperature too.")]
ShowTokens = Annotated[
    Path | None, typer.Option(help="Picture to write: what each stage keeps.", metavar="PNG")
]
WholeAnswer = Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")]


def run(
    bundle: BundleFolder,
    question: Annotated[str, typer.Argument(help="What to ask.")],
    image: Images = None,
    video: Videos = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames that show a second; default 1, of a file its own.")
    ] = None,
    layout: LayoutName = None,
    ratio: RatioOption = None,
    image_tokens: ImageTokens = None,
    backend: Backend = "auto",
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sample; 0 is greedy.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample from the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from this share.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1: repeat less.")] = None,
    seed: Seed = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the answer.")] = None,
    threads: Threads = 0,
    show_tokens: ShowTokens = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print token counts.")] = False,
    as_json: WholeAnswer = False,
) -> None:
    """Answer a question about pictures, videos, or none where the bundle holds that; streams as it goes."""
    from ..engines import VLM

    check_file(show_tokens, "--show-tokens")
    messages = _messages(question, image or [], video or [], fps)
    wish = wished(layout, ratio, image_tokens)
    options: dict[str, Any] = {**vars(wish), "max_new_tokens": max_new_tokens, "stop": stop}
    options |= {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    options |= {"repetition_penalty": repetition_penalty}
    with VLM.load(bundle, backend=backend, threads=threads) as vlm:
        if show_tokens:
            _show_tokens(vlm, messages, wish, show_tokens)
        stream = vlm.generate(messages, stream=True, **options)
        _tell(vlm, stream, wish, verbose, as_json)


def _tell(vlm: "VLM", stream: "Stream", wish: "Wish", verbose: bool, as_json: bool) -> None:
    """Print an answer as it comes, or as JSON."""
    from ..engines.prompt.layouts import said_of
    from ..engines.prompt.positions import limit_passed

    if as_json:
        typer.echo(json.dumps(asdict(stream.answer), indent=1))
        return
    for piece in stream:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    answer = stream.answer
    if answer.finish_reason == "capacity":
        tokens = answer.prompt_tokens + len(answer.token_ids)  # the last has no slot
        console.err.print(f"[yellow]stopped: {limit_passed(vlm.manifest, tokens)}")
    used = next(x for x in vlm.manifest.layouts if x.name == answer.layout)
    if not verbose:
        for line in said_of(used, wish):
            console.err.print(f"[yellow]{line}")
    else:
        _print_counts(vlm.runner.description, used, answer)


def _messages(
    question: str, images: list[Path], videos: list[Path], fps: float | None
) -> list[dict]:
    """A conversation of one turn; the pictures stand before the question."""
    parts: list[dict] = [{"type": "image", "image": str(path)} for path in images]
    parts += [{"type": "video", "video": str(path), "fps": fps} for path in videos]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def _show_tokens(vlm: "VLM", messages: list[dict], wish: "Wish", path: Path) -> None:
    """Draw which visual tokens each stage of the prompt's prefill keeps."""
    from .token_map import draw

    prompt = vlm.processor.prompt(messages, wish)
    if not prompt.images:
        raise LuvcError("--show-tokens draws over pictures, and there is none: give --image")
    _, result, _ = vlm.prefill([prompt])
    kept = {layer: stage.kept[0] for layer, stage in result.stages.items()}
    draw(prompt.images, prompt.layout, kept, path)


def _print_counts(runner: str, layout: Layout, answer: "Answer") -> None:
    t = answer.timing
    console.err.print(f"{runner}, layout {layout.name}, ratio {answer.ratio:g}x", style="dim")
    for note in answer.notes:
        console.err.print(note)
    steps = " -> ".join(str(n) for n in answer.stages.values())
    layers = ", ".join(str(layer) for layer in answer.stages)
    console.err.print(
        f"visual tokens: {layout.baseline_visual_tokens} at ratio 1, {answer.visual_tokens} enter the "
        f"language model" + (f", then {steps} (pruned before layers {layers})" if layers else "")
    )
    console.err.print(
        f"text tokens: {answer.prompt_tokens} in the prompt, {len(answer.token_ids)} generated "
        f"({answer.finish_reason})"
    )
    console.err.print(
        f"time: pixels {t.pixels_ms:.0f} ms, vision {t.vision_ms:.0f} ms, prefill {t.prefill_ms:.0f} ms, "
        f"first token {t.first_token_ms:.0f} ms, then {t.decode_ms_per_token:.1f} ms a token"
    )


def main() -> None:
    """Entry point."""
    console.run_command(run)


if __name__ == "__main__":
    main()
