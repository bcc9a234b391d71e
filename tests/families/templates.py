"""Chat templates of the families, written anew after the published ones."""

# Written anew after the published templates: what each prints for a text and for a list of parts is theirs,
# role by role (FORMS). One loop over messages and parts; what differs is put in by name.
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
# Qwen3-VL: what a tool is asked stands in the assistant's turn, what it answers in a user's.
QWEN3_CALLS = """\
{%- for call in message.tool_calls or [] -%}
{{- '\n' if message.content or not loop.first else '' -}}
{%- set call = call.function or call -%}
{{- '<tool_call>\n{"name": "' + call.name + '", "arguments": ' -}}
{{- call.arguments if call.arguments is string else call.arguments | tojson -}}
{{- '}\n</tool_call>' -}}
{%- endfor -%}"""
QWEN3 = spell(
    "{%- for message in messages -%}\n{%- if message.role == 'tool' -%}\n"
    "{{- '<|im_start|>user' if loop.first or loop.previtem.role != 'tool' else '' -}}\n"
    "{{- '\\n<tool_response>\\n' -}}\n" + CONTENT + "\n{{- '\\n</tool_response>' -}}\n"
    "{{- '<|im_end|>\\n' if loop.last or loop.nextitem.role != 'tool' else '' -}}\n"
    "{%- else -%}\n{{- '<|im_start|>' + message.role + '\\n' -}}\n"
    "{%- if message.content -%}\n" + CONTENT + "\n{%- endif -%}\n"
    "{%- if message.role == 'assistant' -%}\n" + QWEN3_CALLS + "\n{%- endif -%}\n"
    "{{- '<|im_end|>\\n' -}}\n{%- endif -%}\n{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}",
    **QWEN_MARKS,
)
QWEN2 = spell(CHATML.replace("SYSTEM", DEFAULT_SYSTEM), **QWEN_MARKS)
INTERNVL = spell(CHATML.replace("SYSTEM", ""), IMAGE="'<IMG_CONTEXT>\\n'", VIDEO="'<video>\\n'")
OVIS2 = spell(CHATML.replace("SYSTEM", ""), IMAGE="'<image>\\n'", VIDEO="'<video>\\n'")
# LFM2-VL joins the system's content to its marks: a text alone.
LFM2 = spell(
    "{{- bos_token -}}\n{%- set turns = messages -%}\n"
    "{%- if messages[0]['role'] == 'system' -%}{%- set turns = messages[1:] -%}\n"
    "{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' -}}{%- endif -%}\n"
    + CHATML.replace("SYSTEM", "").replace("in messages", "in turns"),
    IMAGE="'<image>'",
    VIDEO="'<video>'",
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
    "{%- elif message['role'] == 'system' -%}"
    "{{- '<<SYS>>\\n' + message['content'][0]['text'] + '\\n<</SYS>>\\n\\n' -}}\n"
    "{%- else -%}{{- raise_exception('Only user and assistant roles are supported!') -}}{%- endif -%}\n"
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
# Gemma 3 has no system's turn: its text stands before the first user's. Turns must alternate.
GEMMA = (
    "{{- bos_token -}}\n{%- set turns = messages -%}{%- set prefix = '' -%}\n"
    "{%- if messages[0]['role'] == 'system' -%}{%- set turns = messages[1:] -%}\n"
    "{%- set first = messages[0]['content'] -%}\n"
    "{%- set prefix = (first if first is string else first[0]['text']) + '\\n\\n' -%}{%- endif -%}\n"
    "{%- for message in turns -%}\n"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{- raise_exception('Conversation roles must alternate') -}}{%- endif -%}\n"
    "{{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' -}}\n"
    "{{- prefix if loop.first else '' -}}\n"
    + spell(CONTENT, IMAGE="'<start_of_image>'", VIDEO="''")
    .replace("part['text'] -}}", "part['text'] | trim -}}")
    .replace("{{- message['content'] -}}", "{{- message['content'] | trim -}}")
    + "\n{{- '<end_of_turn>\\n' -}}\n{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"
)
# Gemma 4's system has a turn of its own.
GEMMA4 = (
    "{{- bos_token -}}\n{%- for message in messages -%}\n"
    "{{- '<|turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' -}}\n"
    + spell(CONTENT, IMAGE="'<|image|>'", VIDEO="'<|video|>'")
    .replace("part['text'] -}}", "part['text'] | trim -}}")
    .replace("{{- message['content'] -}}", "{{- message['content'] | trim -}}")
    + "\n{{- '<turn|>\\n' -}}\n{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|turn>model\\n' -}}{%- endif -%}"
)
GLM_PARTS = spell(
    CONTENT,
    IMAGE="'<|begin_of_image|><|image|><|end_of_image|>'",
    VIDEO="'<|begin_of_video|><|video|><|end_of_video|>'",
)
# GLM-4.1V writes the system's and the assistant's content as it comes: given a list, Python's notation of it.
GLM = (
    "{{- '[gMASK]<sop>' -}}\n{%- for message in messages -%}\n"
    "{%- if message['role'] == 'user' -%}{{- '<|user|>\\n' -}}\n" + GLM_PARTS + "\n"
    "{%- elif message['role'] == 'system' -%}{{- '<|system|>\\n' -}}{{- message['content'] -}}\n"
    "{%- elif message['role'] == 'assistant' -%}\n"
    "{{- '<|assistant|>' -}}{{- message['metadata'] or '' -}}{{- '\\n' -}}{{- message['content'] -}}\n"
    "{%- endif -%}\n{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}"
)
# GLM-OCR trims the assistant's words behind an empty thought; its own answers have none.
GLM_OCR = (
    "{{- '[gMASK]<sop>' -}}\n{%- for message in messages -%}\n"
    "{%- if message.role == 'assistant' -%}{{- '<|assistant|>\\n<think></think>\\n' -}}\n"
    "{%- else -%}{{- '<|' + message.role + '|>\\n' -}}{%- endif -%}\n"
    + GLM_PARTS
    + "\n{%- endfor -%}\n{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}"
)
# LightOnOCR opens with a system's turn, empty where there is none.
LIGHTON = spell(
    CHATML.replace(
        "SYSTEM",
        "{%- if loop.first and message['role'] != 'system' -%}"
        "{{- '<|im_start|>system<|im_end|>\\n' -}}{%- endif -%}\n",
    ),
    IMAGE="'<|image_pad|>'",
    VIDEO="''",
)
# Mistral's turns must alternate behind the system's, which has a default.
MISTRAL = (
    "{{- bos_token -}}\n{%- set turns = messages -%}\n{%- set told = 'You are a helpful assistant.' -%}\n"
    "{%- if messages[0]['role'] == 'system' -%}{%- set turns = messages[1:] -%}\n"
    "{%- set first = messages[0]['content'] -%}\n"
    "{%- set told = first if first is string else first[0]['text'] -%}{%- endif -%}\n"
    "{{- '[SYSTEM_PROMPT]' + told + '[/SYSTEM_PROMPT]' -}}\n"
    "{%- for message in turns -%}\n"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{- raise_exception('Conversation roles must alternate') -}}{%- endif -%}\n"
    "{{- '[INST]' if message['role'] == 'user' else '' -}}\n"
    + spell(CONTENT, IMAGE="'[IMG]'", VIDEO="''")
    + "\n{{- '[/INST]' if message['role'] == 'user' else eos_token -}}\n{%- endfor -%}"
)
# PaddleOCR-VL ends the user's turn and the system's with a line.
PADDLE = (
    "{{- '<|begin_of_sentence|>' -}}\n{%- for message in messages -%}\n"
    "{{- {'user': 'User: ', 'assistant': 'Assistant:\\n', 'system': ''}[message['role']] -}}\n"
    + spell(
        IMAGES_FIRST,
        IMAGE="'<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>'",
        VIDEO="''",
        TEXT="part['text']",
    )
    + "\n{{- eos_token if message['role'] == 'assistant' else '\\n' -}}\n{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- 'Assistant:\\n' -}}{%- endif -%}"
)

# The forms of a turn's content that the published template prints: both unless it is named here.
BOTH = frozenset({"text", "parts"})
TEXTS = frozenset({"text"})
LISTS: dict[str, frozenset[str]] = dict.fromkeys(
    ("system", "user", "assistant"), frozenset({"parts"})
)
FORMS: dict[str, dict[str, frozenset[str]]] = {
    "llava": LISTS,
    "llava_next": LISTS,
    "llava_onevision": LISTS,
    "smolvlm": LISTS,
    "idefics3": LISTS,
    "paddleocr_vl": LISTS,
    "glm4v": {"system": TEXTS, "assistant": TEXTS},
    "lfm2_vl": {"system": TEXTS},
}
