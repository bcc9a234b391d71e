"""Take the solver's schedule, change it, export with it, ask.

python examples/07_own_schedule/example.py [CHECKPOINT] [BUNDLE] [PICTURE]
"""

import sys
from pathlib import Path

from luvc.engines import VLM
from luvc.exporter import ExportConfig, export, plan


def main(
    model: str = "tools/pocket/model",
    output: str = "demo/own",
    picture: str = "demo/picture.png",
) -> None:
    """Prune twice instead of three times."""
    (solved,) = plan(ExportConfig.make(model=model, ratio=2.0, reference_text=24))
    print("solved:", [(stage.layer, stage.keep) for stage in solved.schedule.language])

    _, *later = solved.schedule.language
    own = solved.schedule.model_copy(update={"language": tuple(later)})
    Path(output).with_suffix(".json").write_text(own.model_dump_json(indent=1))

    config = ExportConfig.make(model=model, output=output, schedule=own, reference_text=24)
    bundle = export(config, progress=lambda step: print(f"... {step}"))
    print("own:", bundle.manifest.layouts[0].ratios)

    parts = [
        {"type": "image", "image": picture},
        {"type": "text", "text": "What does the green text say?"},
    ]
    with VLM.load(output) as vlm:
        answer = vlm.generate([{"role": "user", "content": parts}], max_new_tokens=16)
    print(answer.text, answer.stages)


if __name__ == "__main__":
    main(*sys.argv[1:])
