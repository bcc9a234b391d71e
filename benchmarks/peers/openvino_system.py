"""OpenVINO GenAI as a worker: `python -m benchmarks.peers.openvino_system JSON` (see run.py).

Runs in the peers' environment, where luvc is not installed: what it needs of the project is found from
the checkout, and is standard library alone.

Without a scheduler configuration its paged backend keeps the prompt's K/V between calls, and every
repeat would measure a cache; on processors with bfloat16 it would compute in that.
"""

# only the peers' environment has these
# pyright: reportMissingImports=false

import json
import sys

from tools.bench.protocol import serve


def make_pipeline(model: str, threads: int):
    """The model on the CPU in float32, paged attention, no cache between prompts."""
    import openvino_genai as og

    scheduler = og.SchedulerConfig()
    scheduler.enable_prefix_caching = False
    scheduler.max_num_batched_tokens = 8192
    return og.VLMPipeline(
        model,
        "CPU",
        scheduler_config=scheduler,
        ATTENTION_BACKEND="PA",
        KV_CACHE_PRECISION="f32",
        INFERENCE_PRECISION_HINT="f32",
        INFERENCE_NUM_THREADS=threads,
    )


def load(model: str, picture: str, question: str, visual_tokens: int, pruning: int, threads: int):
    """The pipeline with `pruning` percent of the visual tokens left out; see protocol.serve."""
    import numpy as np
    import openvino as ov
    import openvino_genai as og

    image = ov.Tensor(np.load(picture)[None].copy())
    pipeline = make_pipeline(model, threads)

    def ask(new_tokens: int, percent: int):
        options = og.GenerationConfig()
        options.max_new_tokens = new_tokens
        options.ignore_eos = True
        options.do_sample = False
        options.pruning_ratio = percent
        return pipeline.generate(question, images=[image], generation_config=options).perf_metrics

    text = ask(1, 0).get_num_input_tokens() - visual_tokens

    def run(batch: int, new_tokens: int):
        if batch != 1:
            raise ValueError("OpenVINO GenAI is measured with one conversation")
        m = ask(new_tokens, pruning)
        first, vision = m.get_ttft().mean, m.get_prepare_embeddings_duration().mean
        return {
            "pixels_ms": 0.0,  # inside vision_ms
            "vision_ms": vision,
            "prefill_ms": first - vision,
            "first_token_ms": first,
            "decode_ms_per_token": m.get_tpot().mean,
            "text_tokens": text,
            "visual_tokens": [m.get_num_input_tokens() - text],
            "token_ids": None,
        }

    what = f"OpenVINO GenAI {og.__version__}, paged attention, pruning {pruning} %"
    return {"description": what, "dtype": "float32", "ratio": 1.0}, run


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    serve(lambda: load(**arguments))
