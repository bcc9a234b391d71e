"""Chat templates of the families, as they are published but shorter."""

# One loop over messages and parts, as published templates have it; what differs is put in by name.
PARTS = """\
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{- IMAGE -}}
{%- elif part['type'] == 'video' -%}{{- VIDEO -}}
{%- elif part['type'] == 'text' -%}{{- part['text'] -}}{%- endif -%}
{%- endfor -%}"""
CONTENT = (
    "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}\n"
    + PARTS
    + "\n{%- endif -%}"
)
IMAGES_FIRST = """\
{%- for part in message['content'] | selectattr('type', 'equalto', 'image') -%}{{- IMAGE -}}{%- endfor -%}
{%- for part in message['content'] | selectattr('type', 'equalto', 'video') -%}{{- VIDEO -}}{%- endfor -%}
{%- for part in message['content'] | selectattr('type', 'equalto', 'text') -%}\
{{- TEXT -}}{%- endfor -%}"""


def spell(template: str, **words: str) -> str:
    """The template with IMAGE, VIDEO and TEXT replaced by Jinja expressions."""
    for word, expression in words.items():
        template = template.replace(f"{{{{- {word} -}}}}", f"{{{{- {expression} -}}}}")
    return template


CHATML = (
    "{%- for message in messages -%}\nSYSTEM{{- '<|im_start|>' + message['role'] + '\\n' -}}\n"
    + CONTENT
    + "\n{{- '<|im_end|>\\n' -}}\n{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
DEFAULT_SYSTEM = (
    "{%- if loop.first and message['role'] != 'system' -%}"
    "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}{%- endif -%}\n"
)
QWEN_MARKS = {
    "IMAGE": "'<|vision_start|><|image_pad|><|vision_end|>'",
    "VIDEO": "'<|vision_start|><|video_pad|><|vision_end|>'",
}
QWEN3 = spell(CHATML.replace("SYSTEM", ""), **QWEN_MARKS)
QWEN2 = spell(CHATML.replace("SYSTEM", DEFAULT_SYSTEM), **QWEN_MARKS)
INTERNVL = spell(CHATML.replace("SYSTEM", ""), IMAGE="'<IMG_CONTEXT>\\n'", VIDEO="'<video>\\n'")
OVIS2 = spell(CHATML.replace("SYSTEM", ""), IMAGE="'<image>\\n'", VIDEO="'<video>\\n'")
LFM2 = "{{- bos_token -}}\n" + spell(
    CHATML.replace("SYSTEM", ""), IMAGE="'<image>'", VIDEO="'<video>'"
)
ONEVISION = spell(
    "{%- for message in messages -%}\n{{- '<|im_start|>' + message['role'] + ' ' -}}\n"
    + IMAGES_FIRST
    + "\n{{- '<|im_end|>' -}}\n{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}",
    IMAGE="'<image>'",
    VIDEO="'<video>'",
    TEXT="'\\n' + part['text']",
)
LLAVA = spell(
    "{%- for message in messages -%}\n"
    "{%- if message['role'] != 'system' -%}{{- message['role'].upper() + ': ' -}}{%- endif -%}\n"
    + IMAGES_FIRST
    + "\n{%- endfor -%}\n{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}",
    IMAGE="'<image>\\n'",
    VIDEO="''",
    TEXT="part['text'] + ' '",
)
LLAVA_MISTRAL = spell(
    "{%- for message in messages -%}\n{%- if message['role'] == 'user' -%}{{- '[INST] ' -}}\n"
    + IMAGES_FIRST
    + "\n{{- ' [/INST]' -}}\n"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- ' ' + message['content'][0]['text'] + '</s> ' -}}\n"
    "{%- else -%}{{- '<<SYS>>\\n' + message['content'][0]['text'] + '\\n<</SYS>>\\n\\n' -}}{%- endif -%}\n"
    "{%- endfor -%}",
    IMAGE="'<image>\\n'",
    VIDEO="''",
    TEXT="part['text']",
)
IDEFICS = (
    "START{%- for message in messages -%}\n{{- message['role'] | capitalize -}}\n"
    "{{- ':' if message['content'][0]['type'] == 'image' else ': ' -}}\n"
    + spell(PARTS, IMAGE="'<image>'", VIDEO="'<video>'")
    + "\n{{- '<end_of_utterance>\\n' -}}\n{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"
)
GEMMA = (
    "{{- bos_token -}}\n{%- for message in messages -%}\n"
    "{{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' -}}\n"
    + spell(CONTENT, IMAGE="'<start_of_image>'", VIDEO="''").replace(
        "part['text'] -}}", "part['text'] | trim -}}"
    )
    + "\n{{- '<end_of_turn>\\n' -}}\n{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"
)
GLM_PARTS = spell(
    CONTENT,
    IMAGE="'<|begin_of_image|><|image|><|end_of_image|>'",
    VIDEO="'<|begin_of_video|><|video|><|end_of_video|>'",
)
GLM = (
    "{{- '[gMASK]<sop>' -}}\n{%- for message in messages -%}\n"
    "{{- '<|' + message['role'] + '|>\\n' -}}\n" + GLM_PARTS + "\n{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}"
)
