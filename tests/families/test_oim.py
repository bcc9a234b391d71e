"""OIM inside every tower against Hugging Face's own layers, merged by hand between them."""

import math
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import torch

from luvc.engines.bundle.schedule import Axis, Merge, Schedule
from luvc.exporter.vision.graph import VisionGraph

from . import by_hand, films, reference
from .checkpoints import family_of
from .gallery import QUESTION, apart, families, pictures, question

# Before which layer, which axis, groups of how many; after the first tapped layer of DeepStack.
STEPS: tuple[tuple[int, Axis, int], ...] = ((0, "width", 2), (2, "height", 2))
SHALLOW: tuple[tuple[int, Axis, int], ...] = ((0, "width", 2), (1, "height", 2))
ROTARY = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm4v", "glm_ocr")
LAYERS = {
    "internvl": ("vision_tower.encoder.layer", 1, 2),
    "llava": ("vision_tower.encoder.layers", 1, 1),
    "llava_next": ("vision_tower.encoder.layers", 1, 1),
    "llava_onevision": ("vision_tower.encoder.layers", 0, 1),
    "smolvlm": ("vision_model.encoder.layers", 0, 2),
    "idefics3": ("vision_model.encoder.layers", 0, 2),
    "paligemma": ("vision_tower.encoder.layers", 0, 1),
    "gemma3": ("vision_tower.encoder.layers", 0, 4),
    "ovis2": ("vision_tower.transformer.encoder.layers", 0, 2),
    "lfm2_vl": ("vision_tower.encoder.layers", 0, 2),
}  # where the layers are, tokens before the grid, what the projector needs of the grid


@pytest.mark.cell("OIM")
@pytest.mark.parametrize("name", families())
def test_merging_is_hugging_face_merged_by_hand(gallery, name):
    steps = SHALLOW if family_of(name) in ("internvl",) else STEPS
    schedule = Schedule(vision=tuple(Merge(layer=i, axis=a, group=g) for i, a, g in steps))
    vlm = gallery.in_pytorch(name, schedule=schedule)
    (layout,) = vlm.manifest.layouts
    shown = pictures(layout.image_size, 1)
    pixels = torch.from_numpy(vlm.processor.pixels(vlm.processor.prompt(question(shown))))
    tower = VisionGraph(vlm.runner.model, gallery.family(name).adapter, layout)
    model, proc = gallery.hugging_face(name)
    given = reference.inputs(proc, QUESTION, shown)
    with torch.no_grad():
        features = tower(pixels).flatten(0, -2)
        wanted = REFERENCES.get(name, features_of)(model, given, layout, steps)
    assert len(features) == layout.visual_tokens < layout.baseline_visual_tokens
    assert features.shape == wanted.shape
    assert (features - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(
    "name", [apart(n, torchvision=False) for n in ("internvl", "smolvlm", "llava_onevision")]
)
def test_frames_are_merged_as_by_hand(gallery, name):
    """Each frame by itself; behind the projector LLaVA-OneVision halves what is left of it."""
    pytest.importorskip("num2words", reason="needs the extra video")
    schedule = Schedule(vision=tuple(Merge(layer=i, axis=a, group=g) for i, a, g in SHALLOW))
    size, count = films.FAMILIES[name].size, 3
    options = {"frames": (count,), "image_sizes": (size,), "text_capacity": 192}
    vlm = gallery.in_pytorch(name, schedule=schedule, **options)
    (layout,) = vlm.manifest.layouts
    video = {"type": "video", "video": list(films.film(size, count))}
    content = [video, {"type": "text", "text": QUESTION}]
    prompt = vlm.processor.prompt([{"role": "user", "content": content}])
    pixels = torch.from_numpy(vlm.processor.pixels(prompt))
    tower = VisionGraph(vlm.runner.model, gallery.family(name).adapter, layout)
    model, _ = gallery.hugging_face(name)
    with torch.no_grad():
        features = tower(pixels).flatten(0, -2)
        wanted = FRAMES[name](model, {"pixel_values": pixels}, layout, SHALLOW)
    assert len(features) == layout.visual_tokens < layout.baseline_visual_tokens
    assert features.shape == wanted.shape
    assert (features - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def hooked(stack, name, model, layout, steps):
    path, prefix, multiple = LAYERS[name]
    layers = model.model.get_submodule(path)
    by_hand.hook_absolute(stack, layers, steps, layout.grid[1], prefix, multiple)
    return layers


def features_of(model, given, layout, steps):
    """Hugging Face's `get_image_features`, whose projector takes the square grid that is left."""
    with ExitStack() as stack:
        hooked(stack, model.config.model_type, model, layout, steps)
        return reference.features(model, given).tokens


def gemma3(model, given, layout, steps):
    """Hugging Face's projector insists on the unmerged grid: pooled by hand."""
    with ExitStack() as stack:
        hooked(stack, "gemma3", model, layout, steps)
        x = model.model.vision_tower(given["pixel_values"]).last_hidden_state[0]
    p, (_, w) = model.model.multi_modal_projector, layout.merged_grid
    k = p.kernel_size
    cells = torch.stack(by_hand.blocks(by_hand.grid(x, w), k)).unflatten(0, (-1, k * k)).mean(1)
    return p.mm_soft_emb_norm(cells) @ p.mm_input_projection_weight


def anyres(model, given, layout, steps):
    """The features before they are packed, packed by hand."""
    from transformers.models.llava_next import modeling_llava_next as next_

    name, config = model.config.model_type, model.config
    prefix, seen = LAYERS[name][1], {}
    tiles = given["pixel_values"][0]
    with ExitStack() as stack:
        layers = hooked(stack, name, model, layout, steps)
        chosen = layers[config.vision_feature_layer]
        keep = lambda m, a, out: seen.update(x=out[0] if isinstance(out, tuple) else out)  # noqa: E731
        stack.callback(chosen.register_forward_hook(keep).remove)
        model.model.vision_tower(tiles)
    features = model.model.multi_modal_projector(seen["x"][:, prefix:])
    h, w = layout.grid
    spans = [[({y}, {x}) for x in range(w)] for y in range(h)]
    for _, axis, group in steps:
        both = lambda a, b: (a[0] | b[0], a[1] | b[1])  # noqa: E731
        spans = by_hand.merge(spans, axis, group, 1, mean=both)
    rows, columns = next_.get_anyres_image_grid_shape(
        given["image_sizes"][0], config.image_grid_pinpoints, config.vision_config.image_size
    )
    probe = torch.arange(rows * h * columns * w).view(1, rows * h, columns * w)
    kept = next_.unpad_image(probe, given["image_sizes"][0])[0]
    ys, xs = (
        set((kept // (columns * w)).flatten().tolist()),
        set((kept % (columns * w)).flatten().tolist()),
    )
    assert len(kept.flatten()) < probe.numel(), "a size without padding tests less"
    out, newline = list(features[0]), model.model.image_newline
    for row in range(rows):
        for line, cells in enumerate(spans):
            if {row * h + y for y in cells[0][0]} & ys:
                for column in range(columns):
                    here = features[1 + row * columns + column].unflatten(0, (len(spans), -1))[line]
                    inside = [bool({column * w + x for x in c[1]} & xs) for c in cells]
                    out += [f for f, stays in zip(here, inside, strict=True) if stays]
                out.append(newline)
    return torch.stack(out)


def smolvlm_frames(model, given, layout, steps):
    """Frames are the pictures of one prompt."""
    return features_of(model, {"pixel_values": given["pixel_values"][None]}, layout, steps)


def halved(model, given, layout, steps):
    """Each frame's features, a new one for each four by bilinear weights, one line end behind all."""
    seen, config = {}, model.config
    with ExitStack() as stack:
        layers = hooked(stack, "llava_onevision", model, layout, steps)
        keep = lambda m, a, out: seen.update(x=out[0] if isinstance(out, tuple) else out)  # noqa: E731
        chosen = layers[config.vision_feature_layer]
        stack.callback(chosen.register_forward_hook(keep).remove)
        model.model.vision_tower(given["pixel_values"][0])
    x = model.model.multi_modal_projector(seen["x"]).unflatten(1, layout.merged_grid)
    weights = [
        bilinear(left, round(math.ceil(full / 2) * left / full))
        for full, left in zip(layout.grid, layout.merged_grid, strict=True)
    ]
    x = torch.einsum("rh,cw,nhwd->nrcd", *weights, x)
    return torch.cat([x.flatten(0, 2), model.model.image_newline[None]])


def bilinear(length, shorter):
    """What each of a line's new places takes of the old ones: [shorter, length]."""
    found = torch.zeros(shorter, length)
    for i in range(shorter):
        place = max(0.0, (i + 0.5) * length / shorter - 0.5)
        first = int(place)
        found[i, first] += 1 - (place - first)
        found[i, min(first + 1, length - 1)] += place - first
    return found


def lfm2_vl(model, given, layout, steps):
    """Hugging Face cuts features by the unmerged shape: projected here, with its own projector."""
    given = given.copy()
    count = layout.grid[0] * layout.grid[1]
    keys = ("pixel_values", "spatial_shapes", "pixel_attention_mask")
    tower = {k: given[k] if k == "spatial_shapes" else given[k][:, :count] for k in keys}
    with ExitStack() as stack:
        hooked(stack, "lfm2_vl", model, layout, steps)
        x = model.model.vision_tower(**tower).last_hidden_state
    return model.model.multi_modal_projector(x.unflatten(1, layout.merged_grid)).flatten(0, 2)


def pixtral(model, given, layout, steps):
    """Hugging Face's projector takes the size of the picture that the merged grid would be of."""
    core, k = model.model, model.config.spatial_merge_size
    lighton = hasattr(core, "vision_encoder")
    tower = core.vision_encoder if lighton else core.vision_tower
    project = core.vision_projection if lighton else core.multi_modal_projector
    rotary, layers = tower.patch_positional_embedding, tower.transformer.layers
    with ExitStack() as stack:
        by_hand.hook_absolute(stack, layers, steps, layout.grid[1], 0, k, rotary)
        x = tower(given["pixel_values"], image_sizes=given["image_sizes"]).last_hidden_state
    return project(x[0], [tuple(n * tower.patch_size for n in layout.merged_grid)])


def gemma4(model, given, layout, steps):
    """Hugging Face's pooling takes the positions of the grid that is left; padding is not merged."""
    tower, config = model.model.vision_tower, model.config.vision_config
    k, (h, w) = config.pooling_kernel_size, layout.merged_grid
    count = layout.grid[0] * layout.grid[1]
    places = given["image_position_ids"][:, :count]

    def rotary(x, found):  # columns first
        return tower.encoder.rotary_emb(x, found.flip(-1)[None])

    none = torch.zeros(places.shape[:2], dtype=torch.bool)
    with ExitStack() as stack:
        layers = tower.encoder.layers
        by_hand.hook_absolute(stack, layers, steps, layout.grid[1], 0, k, rotary)
        x = tower.patch_embedder(given["pixel_values"][:, :count], places, none)
        x = tower.encoder(x, ~none, pixel_position_ids=places).last_hidden_state
    left = torch.tensor([[[column, row] for row in range(h) for column in range(w)]])
    inside = torch.zeros(1, h * w, dtype=torch.bool)
    x, _ = tower.pooler(x, left, inside, h * w // k**2)
    return model.model.embed_vision(x)[0]


def paddleocr_vl(model, given, layout, steps):
    """Hugging Face's projector takes the merged grid."""
    tower, core = model.model.visual.vision_model, model.model
    parts = SimpleNamespace(
        blocks=tower.encoder.layers,
        rotary_pos_emb=tower.encoder.rotary_pos_emb,
        spatial_merge_size=core.config.vision_config.spatial_merge_size,
    )
    with ExitStack() as stack:
        by_hand.RotaryTower(parts, steps, layout.grid, side=1).hook(stack)
        x = tower(given["pixel_values"][None], grid_thw=given["image_grid_thw"]).last_hidden_state
    return core.projector(x, torch.tensor([[1, *layout.merged_grid]]))


def rotary(model, given, layout, steps):
    """The tower with merged tokens, mean positions and thinned windows."""
    visual = model.model.visual
    window = visual.window_size // visual.patch_size if hasattr(visual, "window_size") else None
    taps = tuple(getattr(visual, "deepstack_visual_indexes", ()))
    hand = by_hand.RotaryTower(visual, steps, layout.grid, window, taps)
    more = {}
    if window:  # tokens come block by block; the hooks bring them into windows
        count = layout.grid[0] * layout.grid[1] // hand.k**2
        more = {"window_index": torch.arange(count), "cu_window_seqlens": torch.tensor([0, count])}
    out: list[torch.Tensor] = []
    with ExitStack() as stack:
        hand.hook(stack)

        def keep(module, args, found):  # Hugging Face puts as many rows in order as came in
            out.append(found)
            return torch.cat(
                [found, found.new_zeros(layout.baseline_visual_tokens - len(found), found.shape[1])]
            )

        stack.callback(visual.merger.register_forward_hook(keep).remove)
        visual(given["pixel_values"], given["image_grid_thw"], **more)
    deep = [visual.deepstack_merger_list[i](hand.tapped[t]) for i, t in enumerate(taps)]
    return torch.cat([out[0], *deep], -1)


FRAMES = {"internvl": features_of, "smolvlm": smolvlm_frames, "llava_onevision": halved}
REFERENCES = {
    "gemma3": gemma3,
    "gemma4": gemma4,
    "llava_next": anyres,
    "llava_onevision": anyres,
    "lfm2_vl": lfm2_vl,
    "lighton_ocr": pixtral,
    "mistral3": pixtral,
    "paddleocr_vl": paddleocr_vl,
    **dict.fromkeys(ROTARY, rotary),
}
