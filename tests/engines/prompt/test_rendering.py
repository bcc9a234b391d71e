"""The process that renders chat templates: Hugging Face's environment, within bounds."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from luvc.engines.prompt import chat_template
from luvc.engines.prompt.chat_template import ChatTemplate
from luvc.engines.prompt.rendering import Renderer, RenderError, renderer
from luvc.errors import LuvcError

from ...families.prompts import tokenizer

MESSAGES = [
    {"role": "user", "content": "Wöhler's <b>\n", "n": 1.5, "tags": ["a", True, None]},
    {"role": "assistant", "content": "'So.'", "reasoning_content": "Hm."},
]
# what transformers adds to Jinja's sandbox, and settings that change the text
ENVIRONMENT = [
    "{% for m in messages %}\n    {{ m.content }}\n  {% endfor %}\n",
    "{{ messages | tojson }} {{ messages[0] | tojson(indent=2, sort_keys=true) }}",
    "{{ messages | tojson(ensure_ascii=true, separators=(',', ':')) }}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% break %}{% endfor %}",
    "a{% generation %}{{ messages[1].content }}{% endgeneration %}b",
    "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
    "{% set n = namespace(found=false, self=2) %}{% set n.found = true %}{{ n.found }}{{ n.self }}",
    "{{ dict(a=1) }}{{ dict.fromkeys('ab', 1) }}{{ dict.keys }}",
    "{{ strftime_now('%Y-%m') }}",
    "{{ messages[0].missing }}|{{ missing is defined }}|{{ tools is none }}|{{ documents }}",
    "{{ bos_token }}{{ add_generation_prompt }}{{ messages[0].n }}{{ messages[0].tags }}",
    "{{ messages[1].thinking }}{{ messages[1].reasoning_content }}",
]
FAILING = [
    "{{ raise_exception('Roles must alternate.') }}",
    "{% set n = namespace(_a=1) %}",
    "{% set n = namespace() %}{% set n._a = 1 %}",
    "{{ messages[0].content.__class__.__mro__ }}",
    "{{ messages.append(1) }}",
    "{{ missing.of.it }}",
    "{% if %}",
    "{% include 'other' %}",
]


def hugging_face(template: str) -> str:
    texts, _ = render_jinja_template(
        [MESSAGES], chat_template=template, add_generation_prompt=True, bos_token="<s>"
    )
    return texts[0]


def ours(template: str) -> str:
    found = tokenizer("qwen2_vl")
    found.bos_token, found.chat_template = "<s>", template
    return ChatTemplate(found)._apply(MESSAGES)


@pytest.mark.parametrize("template", ENVIRONMENT)
def test_the_environment_is_hugging_faces(template):
    assert ours(template) == hugging_face(template)


@pytest.mark.parametrize("template", FAILING)
def test_what_fails_there_fails_here(template):
    with pytest.raises(Exception) as wanted:
        hugging_face(template)
    with pytest.raises(RenderError) as found:
        ours(template)
    if "_a" not in template:  # transformers says more of these
        assert str(found.value) == str(wanted.value)


TIME = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 3 ** (10 ** 9) }}",
    "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
    "{{ n.x == [n.x] }}{{ n.x | string | length }}",
]
MEMORY = [
    "{{ 'a' * 3 * 10**9 }}",
    "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{{ '%3000000000d' % 1 }}{{ 'a' | center(3 * 10**9) }}",
    "{{ (['a' * 10**6] * 10**6) | join }}",
]
LENGTH = [
    "{{ range(10**9) | list }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ 'a' * 10**8 }}",
    "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "a" * 1_000_001,
]


@pytest.fixture(scope="module")
def impatient():
    """A renderer with less time."""
    found = Renderer(0.2)
    yield found
    found.close()


@pytest.mark.parametrize("template", [*TIME, *MEMORY, *LENGTH], ids=lambda t: t[:40])
def test_a_template_that_does_not_end_is_refused(impatient, template):
    start = time.perf_counter()
    with pytest.raises(LuvcError, match=r"chat template .*: .*mend chat_template.jinja"):
        impatient.render(template, {})
    assert time.perf_counter() - start < 20  # most of it is the machine's
    assert impatient.render("{{ 1 + 1 }}", {}) == "2"


def test_a_bundles_template_is_tried_once(impatient, monkeypatch):
    """Finding out its forms does not wait for each of them."""
    monkeypatch.setattr(chat_template, "renderer", impatient)
    found = tokenizer("qwen2_vl")
    found.chat_template = TIME[0]
    with pytest.raises(LuvcError, match=r"bounds \(time; it has 0.2 s, 512 MiB"):
        ChatTemplate(found).check()


def test_many_threads_get_their_own_texts():
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda n: renderer.render("{{ n }}", {"n": n}), range(200)))
    assert texts == [str(n) for n in range(200)]


def test_a_process_that_was_killed_is_started_again():
    assert renderer.render("a", {}) == "a"
    process = renderer._process
    assert process is not None
    process.kill()
    process.wait()
    assert renderer.render("b", {}) == "b"


def test_an_interrupt_leaves_no_answer_for_the_next_question(monkeypatch):
    renderer.start()
    process = renderer._process
    assert process is not None
    with monkeypatch.context() as patch:
        patch.setattr(renderer, "_process", Interrupted(process))
        with pytest.raises(KeyboardInterrupt):
            renderer.render("a", {})
    assert process.poll() is not None
    assert renderer.render("b", {}) == "b"


class Interrupted:
    """A process at whose answer Ctrl-C comes."""

    def __init__(self, process):
        self.process = process
        self.stdout = self

    def __getattr__(self, name):
        return getattr(self.process, name)

    def readline(self):
        raise KeyboardInterrupt


def test_it_ends_with_the_program():
    code = (
        "from luvc.engines.prompt.rendering import renderer; renderer.render('a', {})\n"
        "import os; print(renderer._process.pid, flush=True); os._exit(0)  # without a farewell"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for _ in range(100):
        if not alive(int(done.stdout)):
            return
        time.sleep(0.05)
    pytest.fail("the process lives on")


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_forked_copy_has_a_process_of_its_own():
    assert renderer.render("a", {}) == "a"
    child = os.fork()
    if not child:
        os._exit(renderer._process is not None or renderer.render("b", {}) != "b")
    assert os.waitpid(child, 0)[1] == 0
    assert renderer.render("c", {}) == "c"
