"""What cannot be exported is refused before any work, with the value, the limit and the mend."""

import json
import shutil

import pytest

from luvc.engines.bundle.schedule import Prune, Schedule
from luvc.errors import LuvcError
from luvc.exporter import plan
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.layouts.planned import image_geometry

LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 32, "long_factor": [1.0] * 32}


@pytest.fixture
def changed(gallery, tmp_path):
    """A function: a checkpoint without weights, with other fields in config.json -> its folder."""

    def change(name, fields, file="config.json"):
        ignored = shutil.ignore_patterns("*.safetensors")
        folder = shutil.copytree(gallery.checkpoint(name), tmp_path / name, ignore=ignored)
        values = json.loads((folder / file).read_text())
        for key, value in fields.items():
            inner = isinstance(value, dict) and isinstance(values.get(key), dict)
            values[key] = values[key] | value if inner else value
        (folder / file).write_text(json.dumps(values))
        return folder

    return change


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "internvl",
            {"text_config": {"model_type": "qwen3_moe"}},
            "'qwen3_moe' is not supported: gemma",
        ),
        (
            "internvl",
            {"quantization_config": {"quant_method": "hqq", "nbits": 4}},
            r"is quantised \('hqq'\), which is not read; what is: awq, .*: give the checkpoint it was made",
        ),
        (
            "llava",
            {"vision_config": {"model_type": "pixtral"}},
            "vision tower 'pixtral' is not supported: clip_vision_model",
        ),
        (
            "qwen2_vl",
            {"text_config": {"layer_types": ["sliding_attention"] * 4, "sliding_window": 64}},
            "sliding windows beside rotary positions in three axes",
        ),
        (
            "internvl",
            {"text_config": {"layer_types": ["full_attention", "linear_attention"] * 2}},
            "layers of type linear_attention are not supported: only full_attention",
        ),
        (
            "internvl",
            {"text_config": {"rope_parameters": LONGROPE}},
            "kind 'longrope' .*default, linear",
        ),
        ("internvl", {"vision_feature_layer": -2}, "layer -2 .* only layer -1"),
        (
            "internvl",
            {"vision_config": {"image_size": [168, 224]}},
            "168x224 pixels .* only square",
        ),
        ("llava", {"vision_feature_select_strategy": "full"}, r"'full' .* CLS .*\(use 'default'\)"),
        (
            "ovis2",
            {"vision_config": {"tokenize_function": "gumbel_argmax"}},
            "at random: only 'softmax'",
        ),
        ("mistral3", {"vision_feature_layer": -2}, "layer -2 .* only layer -1"),
        ("mistral3", {"vision_config": {"model_type": "clip_vision_model"}}, "only 'pixtral' is"),
        ("gemma3", {"text_config": {"use_bidirectional_attention": True}}, "look ahead"),
        ("gemma4", {"text_config": {"use_bidirectional_attention": "all"}}, "look ahead"),
        (
            "gemma4",
            {"text_config": {"enable_moe_block": True, "num_experts": 128, "top_k_experts": 8}},
            "mixture-of-experts .* 128 experts",
        ),
        (
            "qwen2_vl",
            {"model_type": "qwen3_vl_moe"},
            "'qwen3_vl_moe' is not a supported .*: gemma3, gemma4, glm4v",
        ),
        (
            "qwen2_vl",
            {"model_type": "mllama_next", "auto_map": {"AutoModel": "code.Model"}},
            "needs code of its own .* never run; use the checkpoint in Hugging Face's own format",
        ),
    ],
)
def test_an_unsupported_checkpoint_is_refused(changed, name, fields, message):
    with pytest.raises(LuvcError, match=message):
        Family.load(str(changed(name, fields)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "internvl",
            {"image_sizes": ((100, 100),)},
            "100x100 is not a whole number of 168x168 tiles",
        ),
        ("internvl", {"image_sizes": ((672, 672),)}, "16 tiles; .* at most 12: use a smaller"),
        ("smolvlm", {"image_sizes": ((768, 768),)}, "16 tiles; .* at most 4: use a smaller"),
        ("llava", {"image_sizes": ((224, 224),)}, "every image to 112x112; leave --image-size out"),
        (
            "gemma3",
            {"image_sizes": ((448, 448),)},
            "every image to 224x224; leave --image-size out",
        ),
        (
            "qwen2_vl",
            {"image_sizes": ((100, 100),)},
            r"brings 100x100 to 112x112 \(multiples of 28 .*\): use --image-size 112x112",
        ),
        (
            "qwen3_vl",
            {"image_sizes": ((100, 100),)},
            "brings 100x100 to 96x96 .*: use --image-size 96x96",
        ),
        ("glm4v", {"image_sizes": ((560, 560),)}, "brings 560x560 to .*: use --image-size"),
        (
            "llava",
            {"image_tokens": 10},
            "llava brings every picture to 112x112, which is 64 visual tokens: leave it out",
        ),
        (
            "qwen2_vl",
            {"image_sizes": (), "image_tokens": 3},
            "smallest .*, square, is 56x56 with 4 visual tokens: ask for more",
        ),
        (
            "mistral3",
            {"image_sizes": ((28, 2800),), "image_tokens": 50},
            "no picture as it is that is of the proportions of 28x2800: give another --image-size",
        ),
        (
            "mistral3",
            {"image_sizes": ((224, 112),)},
            "brings 224x112 to 196x112 .*: use --image-size 196x112",
        ),
        (
            "gemma4",
            {"image_sizes": ((100, 100),)},
            "brings 100x100 to 96x96, which fills its 70 visual tokens, .*: use --image-size 96x96",
        ),
        (
            "gemma4",
            {"ratio_of": "latency", "ratio": 2.0},
            "--ratio-of latency .* share one table of inputs",
        ),
        ("llava_next", {"frames": (4,)}, "llava_next knows no videos: give --images 4 instead"),
        ("llava_onevision", {"frames": (4,)}, "frame of a video to 98x98: use --image-size 98x98"),
        (
            "qwen2_vl",
            {"frames": (3,)},
            "3 frames does not divide into steps of 2 frames: use a multiple",
        ),
        (
            "llava_next",
            {"match": True, "ratio": 2.0},
            "packs its tiles by their grid: add --oim-restore",
        ),
    ],
)
def test_an_impossible_layout_is_refused(gallery, name, options, message):
    with pytest.raises(LuvcError, match=message):
        plan(gallery.config(name, **{"ratio": 1} | options), gallery.family(name))


def test_a_stage_between_layers_that_share_keys_is_refused(gallery):
    schedule = Schedule(language=(Prune(layer=4, keep=5),))
    message = (
        "nothing can be dropped before language layer 4: layers 5 to 6 read .* layer 3 is the first"
    )
    with pytest.raises(LuvcError, match=message):
        plan(gallery.config("gemma4", schedule=schedule), gallery.family("gemma4"))


def test_a_grid_that_the_projector_cannot_take_is_refused(gallery, changed, tmp_path):
    folder = changed("internvl", {"vision_config": {"image_size": [154, 154]}})
    file = folder / "preprocessor_config.json"
    values = json.loads(file.read_text()) | {"size": {"height": 154, "width": 154}}
    file.write_text(json.dumps(values))
    with pytest.raises(LuvcError, match=r"grid of 11x11 vision tokens .* blocks of 2x2: mend"):
        image_geometry(Family.load(str(folder)))


def test_layers_outside_the_tower_are_refused(changed):
    family = Family.load(str(changed("llava", {"vision_feature_layer": -9})))
    with pytest.raises(
        LuvcError, match=r"vision_feature_layer \[-9\] is outside the tower's 4 layers"
    ):
        _ = family.encoder


def test_another_processor_than_the_towers_is_refused(changed):
    sizes = {"size": {"shortest_edge": 140}, "crop_size": {"height": 140, "width": 140}}
    folder = changed("llava", sizes, "preprocessor_config.json")
    with pytest.raises(
        LuvcError, match=r"makes 140x140 pixels .* 112x112: mend preprocessor_config"
    ):
        image_geometry(Family.load(str(folder)))


def test_a_tokenizer_without_the_image_token_is_refused(changed):
    folder = changed("qwen2_vl", {})
    for file in folder.glob("*token*"):
        file.write_text(file.read_text().replace("<|image_pad|>", "<|other_pad|>"))
    with pytest.raises(LuvcError, match=r"does not know <\|image_pad\|>; add it"):
        _ = Family.load(str(folder)).language


def test_a_ratio_that_the_prompt_cannot_reach_is_refused(gallery):
    config = gallery.config("gemma3", ratio=9.0)
    with pytest.raises(
        LuvcError, match=r"9x is not feasible .* the largest feasible ratio is [\d.]+x"
    ):
        plan(config, gallery.family("gemma3"))


def test_the_processors_template_goes_before_the_tokenizers(changed):
    folder = changed("llava_onevision", {})
    assert Family.load(str(folder)).tokenizer.chat_template
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "of the family"}))
    assert Family.load(str(folder)).tokenizer.chat_template == "of the family"
    (folder / "processor_config.json").write_text(json.dumps({"chat_template": "named first"}))
    assert Family.load(str(folder)).tokenizer.chat_template == "named first"
    (folder / "processor_config.json").write_text("{")
    with pytest.raises(LuvcError, match=r"processor_config\.json cannot be read"):
        _ = Family.load(str(folder)).tokenizer
