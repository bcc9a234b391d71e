"""Questions without a picture, in the layout that `--images 0` adds, against Hugging Face."""

import numpy as np
import pytest

from luvc.engines import VLM
from luvc.engines.serving import Limits, Scheduler
from luvc.errors import LuvcError
from luvc.exporter import plan
from luvc.exporter.prepare import prepare

from . import reference
from .checkpoints import family_of
from .gallery import QUESTION, apart, names, pictures, question

TEXT = QUESTION + " Tell me about every part of it, one after the other."  # more than a window


TAKES_NONE = "paligemma"  # neither does Hugging Face's processor


@pytest.mark.cell("text only")
@pytest.mark.parametrize("name", [n for n in names() if family_of(n.values[0]) != TAKES_NONE])
def test_an_answer_without_a_picture_is_hugging_faces(gallery, name):
    model, proc = gallery.hugging_face(name)
    vlm = gallery.in_pytorch(name, images=(0, 1))
    assert [layout.images for layout in vlm.manifest.layouts] == [1, 0]
    prompt = vlm.processor.prompt(question([], TEXT))
    assert prompt.input_ids == reference.inputs(proc, TEXT)["input_ids"][0].tolist()
    answer = vlm.generate(question([], TEXT), max_new_tokens=12)
    assert answer.token_ids == reference.generate(model, proc, [], TEXT, 12)
    assert (answer.layout, answer.visual_tokens, answer.stages) == ("text", 0, {})


@pytest.mark.parametrize(
    "name", [*names("qwen3_vl", "gemma3", "lfm2_vl"), apart("ovis2", torchvision=False, slow=True)]
)
def test_graphs_without_a_picture_answer_as_hugging_face(gallery, name):
    """Those that differ most: three axes and DeepStack, windows, convolutions, marks."""
    model, proc = gallery.hugging_face(name)
    vlm = VLM.load(gallery.bundle(name, "plain").path, threads=1)
    texts = TEXT, QUESTION
    wanted = [reference.generate(model, proc, [], text, 12) for text in texts]
    batch = vlm.generate([question([], text) for text in texts], max_new_tokens=12)
    assert [answer.token_ids for answer in batch] == wanted
    shown = pictures(vlm.manifest.layouts[0].image_size, 1)
    chats = [v.chat(max_new_tokens=4) for v in (vlm, gallery.in_pytorch(name, images=(1, 0)))]
    assert chats[0].ask(QUESTION).token_ids == chats[1].ask(QUESTION).token_ids == wanted[1][:4]
    ours, theirs = (chat.ask("Why?") for chat in chats)
    assert (ours.token_ids, ours.reused_tokens) == (theirs.token_ids, theirs.reused_tokens)
    assert chats[0].ask("And here?", shown).visual_tokens > 0
    with Scheduler(vlm, Limits(rows=2, prefill=2)) as scheduler:  # rows are taken again
        seen = vlm.generate(question(shown), max_new_tokens=6).token_ids
        asked = [question([], TEXT), question(shown), question([], QUESTION)] * 2
        tickets = [scheduler.submit(messages, max_new_tokens=6) for messages in asked]
        found = [ticket.answer.token_ids for ticket in tickets]
    assert found == [wanted[0][:6], seen[:6], wanted[1][:6]] * 2


@pytest.mark.xdist_group("family-qwen3_vl")
def test_questions_with_and_without_a_picture_share_a_batch(gallery):
    vlm = VLM.load(gallery.bundle("qwen3_vl", "plain").path, threads=1)
    size = vlm.manifest.layouts[0].image_size
    asked = [question([]), question(pictures(size, 1)), question([], "Why?")]
    answers = vlm.generate(asked, max_new_tokens=8)
    assert [a.layout for a in answers] == ["text", vlm.manifest.layouts[0].name, "text"]
    for messages, answer in zip(asked, answers, strict=True):
        assert vlm.generate(messages, max_new_tokens=8).token_ids == answer.token_ids
    with pytest.raises(LuvcError, match=r"has no images, layout .* holds 1: name another layout"):
        vlm.generate(question([]), layout=vlm.manifest.layouts[0].name)
    alone = VLM.load(gallery.bundle("qwen3_vl", "compressed").path, threads=1)
    with pytest.raises(
        LuvcError, match="no images, this bundle holds 1: give one, or export with --images 0 too"
    ):
        alone.generate(question([]))


def test_a_family_that_takes_no_such_question_is_refused(gallery, tmp_path):
    with pytest.raises(ValueError, match="`images` are expected"):
        reference.inputs(gallery.hugging_face(TAKES_NONE)[1], QUESTION)
    with pytest.raises(LuvcError, match="paligemma takes no question without a picture"):
        plan(gallery.config(TAKES_NONE, images=(1, 0)), gallery.family(TAKES_NONE))
    config = gallery.config(TAKES_NONE, images=(1, 0), ratio_of="latency", output=tmp_path / "b")
    with pytest.raises(LuvcError, match="paligemma takes no question without a picture"):
        prepare(config, gallery.family(TAKES_NONE))  # before anything is measured


def test_a_layout_without_pictures_holds_text_alone(gallery):
    layout = gallery.in_pytorch("qwen2_vl", images=(1, 0)).manifest.layouts[1]
    assert (layout.name, layout.graphs.vision) == ("text", "")
    assert [stage.visual for stage in layout.stages] == [0]
    assert layout.ratios.both == 1 and not layout.schedule.language
    assert np.prod(layout.image_size) == 0
