"""Videos: which frames of a longer one are shown, how a prompt tells their times, and what is refused."""

from datetime import timedelta
from typing import Any, get_args

import numpy as np
import pytest

from luvc.engines.bundle.layout import Layout, Sampling
from luvc.engines.prompt.videos import Video, open_video, sampled, told
from luvc.errors import LuvcError


@pytest.mark.parametrize("how", get_args(Sampling))
@pytest.mark.parametrize(("total", "count"), [(1, 1), (4, 4), (9, 4), (250, 16), (100_000, 3)])
def test_samples_are_spread_over_the_video(how, total, count):
    chosen = sampled(total, count, how, 25.0)
    assert len(set(chosen)) == count and chosen == sorted(chosen)
    assert chosen[0] >= 0 and chosen[-1] < total
    gaps = np.diff([*chosen, chosen[0] + total] if how not in ("ends", "inside") else chosen)
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


def test_times_are_told_in_every_form():
    """Steps of two frames: of one second to two, and of an hour and some minutes."""
    video = Video(("a", "b", "c", "d"), 1.0, (1.0, 2.0, 3723.5, 3724.5), 7325.9)
    layout = Layout.model_construct(name="x", frames=4, tiles=2)
    for mark, first, second in (
        ("{seconds}", "1.5", "3724.0"),
        ("{begins}", "1.0", "3723.5"),
        ("{begins_whole}", "1", "3723"),
        ("{clock}", "00:01", "62:03"),
    ):
        text = f"<{mark}|{mark}> of {{duration}} {{other}} {{}}"
        wanted = f"<{first}|{second}> of {timedelta(seconds=7325)} {{other}} {{}}"
        assert told(text, video, layout) == wanted
    with pytest.raises(LuvcError, match="layout x tells more than 2 times of a video"):
        told("{seconds}{clock}{begins}", video, layout)


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no frame")
    wrong: tuple[tuple[Any, str], ...] = (
        (tmp_path, "needs frames of one size, .* has none"),
        ([], "has none or several sizes"),
        (b"GIF89a", "the list of its frames .* got bytes"),
        (tmp_path / "nowhere.mp4", r"nowhere\.mp4 cannot be read \(No such file"),
        ([tmp_path / "notes.txt"], r"image .*notes\.txt cannot be read: it is of no known format"),
    )
    for source, message in wrong:
        with pytest.raises(LuvcError, match=message):
            open_video(source)
