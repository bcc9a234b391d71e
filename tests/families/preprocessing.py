"""Settings of the image, video and text processors; the sides agree with shapes.py."""

from typing import Any


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def pixels(smallest: int, largest: int) -> dict[str, int]:
    """Limits of a dynamic size, in pixels of an image."""
    return {"shortest_edge": smallest, "longest_edge": largest}


MIDDLE = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
NESTED = {"size": {"longest_edge": 384}, "max_image_size": {"longest_edge": 192}}
ANYRES = [[112, 224], [224, 112], [224, 224], [336, 112], [112, 336]]
# Image processor class (without backend), and its settings.
IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "internvl": (
        "GotOcr2ImageProcessor",
        {"size": square(168), "crop_to_patches": True, "max_patches": 12},
    ),
    "llava": (
        "CLIPImageProcessor",
        {"size": {"shortest_edge": 112}, "crop_size": square(112)},
    ),
    "llava_next": (
        "LlavaNextImageProcessor",
        {
            "size": {"shortest_edge": 112},
            "crop_size": square(112),
            "image_grid_pinpoints": ANYRES,
        },
    ),
    "llava_onevision": (
        "LlavaOnevisionImageProcessor",
        {
            "size": square(98),
            "image_grid_pinpoints": [[98 * a, 98 * b] for a in (1, 2, 3) for b in (1, 2, 3)],
        },
    ),
    "qwen2_vl": ("Qwen2VLImageProcessor", {"size": pixels(56 * 56, 168 * 168)}),
    "qwen2_5_vl": ("Qwen2VLImageProcessor", {"size": pixels(56 * 56, 168 * 168)}),
    "qwen3_vl": (
        "Qwen2VLImageProcessor",
        {"size": pixels(64 * 64, 192 * 192), "patch_size": 16, **MIDDLE},
    ),
    "qwen3_5": (
        "Qwen2VLImageProcessor",
        {"size": pixels(64 * 64, 192 * 192), "patch_size": 16, **MIDDLE},
    ),
    # GLM counts the temporal patch in: twice the pixels of an image.
    "glm4v": ("Glm4vImageProcessor", {"size": pixels(112 * 112, 2 * 168 * 168)}),
    "glm_ocr": ("Glm46VImageProcessor", {"size": pixels(112 * 112, 2 * 168 * 168)}),
    "lighton_ocr": (
        "PixtralImageProcessor",
        {"size": {"longest_edge": 196}, "patch_size": square(28)},
    ),
    # Its own patch size is not what counts: the processor gives it blocks of 2x2.
    "mistral3": (
        "PixtralImageProcessor",
        {"size": {"longest_edge": 196}, "patch_size": square(14)},
    ),
    "paddleocr_vl": (
        "PaddleOCRVLImageProcessor",
        {"size": pixels(56 * 56, 168 * 168), **MIDDLE},
    ),
    "smolvlm": ("SmolVLMImageProcessor", NESTED),
    "idefics3": ("Idefics3ImageProcessor", NESTED),
    "paligemma": ("SiglipImageProcessor", {"size": square(168)}),
    "gemma3": ("Gemma3ImageProcessor", {"size": square(224)}),
    "gemma4": (
        "Gemma4ImageProcessor",
        {"patch_size": 4, "pooling_kernel_size": 3, "max_soft_tokens": 70},
    ),
    "ovis2": (
        "Ovis2ImageProcessor",
        {"size": square(168), "crop_to_patches": True, "max_patches": 9},
    ),
    "lfm2_vl": (
        "Lfm2VlImageProcessor",  # exists for torchvision only: the JSON is written by hand
        {
            "size": square(192),
            "tile_size": 192,
            "encoder_patch_size": 16,
            "downsample_factor": 2,
            "min_image_tokens": 16,
            "max_image_tokens": 36,
            "min_tiles": 2,
            "max_tiles": 4,
            "do_image_splitting": True,
            "use_thumbnail": True,
        },
    ),
}
# Processor class and what it needs to know beside tokenizer and image processor.
PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "internvl": ("InternVLProcessor", {"image_seq_length": 36}),
    "llava": (
        "LlavaProcessor",
        {
            "patch_size": 14,
            "num_additional_image_tokens": 1,
            "vision_feature_select_strategy": "default",
        },
    ),
    "llava_next": (
        "LlavaNextProcessor",
        {
            "patch_size": 14,
            "num_additional_image_tokens": 1,
            "vision_feature_select_strategy": "default",
        },
    ),
    "llava_onevision": (
        "LlavaOnevisionProcessor",
        {
            "num_image_tokens": 49,
            "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_9",
        },
    ),
    "qwen2_vl": ("Qwen2VLProcessor", {}),
    "qwen2_5_vl": ("Qwen2_5_VLProcessor", {}),
    "qwen3_vl": ("Qwen3VLProcessor", {}),
    "qwen3_5": ("Qwen3VLProcessor", {}),
    "glm4v": ("Glm4vProcessor", {}),
    "glm_ocr": ("Glm46VProcessor", {}),
    "lighton_ocr": ("LightOnOcrProcessor", {"patch_size": 14, "spatial_merge_size": 2}),
    "mistral3": ("PixtralProcessor", {"patch_size": 14, "spatial_merge_size": 2}),
    "paddleocr_vl": ("PaddleOCRVLProcessor", {}),
    "smolvlm": ("SmolVLMProcessor", {"image_seq_len": 36}),
    "idefics3": ("Idefics3Processor", {"image_seq_len": 36}),
    "paligemma": ("PaliGemmaProcessor", {}),
    "gemma3": ("Gemma3Processor", {"image_seq_length": 16}),
    "gemma4": ("Gemma4Processor", {"image_seq_length": 70}),
    "ovis2": ("Ovis2Processor", {"image_seq_length": 36}),
    "lfm2_vl": ("Lfm2VlProcessor", {}),
}
# Video processors, for the families whose processor class asks for one.
VIDEOS: dict[str, dict[str, Any]] = {
    "internvl": {"video_processor_type": "InternVLVideoProcessor", "size": square(168)},
    "llava_onevision": {
        "video_processor_type": "LlavaOnevisionVideoProcessor",
        "size": square(98),
    },
    "qwen2_vl": {
        "video_processor_type": "Qwen2VLVideoProcessor",
        "size": pixels(56 * 56, 168 * 168),
    },
    "qwen2_5_vl": {
        "video_processor_type": "Qwen2VLVideoProcessor",
        "size": pixels(56 * 56, 168 * 168),
    },
    # Qwen3-VL and GLM count the pixels of the whole video.
    "qwen3_vl": {
        "video_processor_type": "Qwen3VLVideoProcessor",
        "size": pixels(64 * 64, 4 * 192 * 192),
        "patch_size": 16,
        **MIDDLE,
    },
    "qwen3_5": {
        "video_processor_type": "Qwen3VLVideoProcessor",
        "size": pixels(64 * 64, 4 * 192 * 192),
        "patch_size": 16,
        **MIDDLE,
    },
    "glm4v": {
        "video_processor_type": "Glm4vVideoProcessor",
        "size": pixels(112 * 112, 4 * 168 * 168),
    },
    "glm_ocr": {
        "video_processor_type": "Glm46VVideoProcessor",
        "size": pixels(112 * 112, 4 * 168 * 168),
    },
    "gemma4": {
        "video_processor_type": "Gemma4VideoProcessor",
        "patch_size": 4,
        "pooling_kernel_size": 3,
        "max_soft_tokens": 70,
    },
    "smolvlm": {
        "video_processor_type": "SmolVLMVideoProcessor",
        "size": {"longest_edge": 384},
        "max_image_size": {"longest_edge": 192},
    },
}
