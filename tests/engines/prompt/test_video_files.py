"""Files of videos: the frames that PyAV decodes one by one, counted, turned and bounded; refusals."""

import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from luvc.engines.prompt import video_files
from luvc.engines.prompt.video_files import FileFrames
from luvc.engines.prompt.videos import open_video
from luvc.errors import LuvcError

av: Any = pytest.importorskip("av", reason="needs the extra video")
COUNT, PACE = 11, 5


def write(
    path: Path, size: tuple[int, int] = (48, 64), count: int = COUNT, turned: int = 0
) -> Path:
    """A file of frames whose upper half grows brighter."""
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=PACE)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        if turned:
            stream.set_display_rotation(turned)
        for n in range(count):
            frame = np.zeros((*size, 3), np.uint8)
            frame[: size[0] // 2] = 40 + 8 * n
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi"])
def test_a_file_shows_the_frames_that_it_decodes_to(tmp_path, kind):
    path = write(tmp_path / f"a.{kind}")
    video = open_video(str(path))
    assert (len(video.frames), video.fps, video.size) == (COUNT, PACE, (64, 48))
    assert video.duration == pytest.approx(COUNT / PACE)
    shown = video.sample(4, "middles")
    places = [1, 4, 6, 9]
    assert shown.times == pytest.approx([n / PACE for n in places])
    assert shown.duration == video.duration
    assert shown.fps == pytest.approx(PACE * 4 / COUNT)
    whole = decoded(path)
    for frame, n in zip(shown.frames, places, strict=True):
        np.testing.assert_array_equal(np.asarray(frame), whole[n])


def test_what_was_turned_is_set_upright(tmp_path):
    """A quarter to the left: what was above is on the left."""
    video = open_video(write(tmp_path / "a.mp4", turned=90))
    (frame,) = video.sample(1, "starts").frames
    assert video.size == frame.size == (48, 64)
    left, right = np.asarray(frame)[:, 4], np.asarray(frame)[:, -4]
    assert left.mean() > 30 > 10 > right.mean()


def test_a_file_has_a_pace_of_its_own(tmp_path):
    path = write(tmp_path / "a.mp4")
    assert open_video(path, PACE).fps == PACE
    with pytest.raises(LuvcError, match=r"5 frames a second of its own, fps 2 .* leave fps out"):
        open_video(path, 2)


@pytest.mark.parametrize("kind", ["mkv", "mp4"])
def test_the_pace_is_that_of_the_frames_times(tmp_path, kind):
    """A frame each half a second, whatever rate the header holds."""
    path = tmp_path / f"a.{kind}"
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.height, stream.width = 48, 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for n in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), n, np.uint8), format="rgb24")
            frame.pts, frame.time_base = 500 * n, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    video = open_video(path)
    assert len(video.frames) == 12 and video.fps == pytest.approx(2, rel=0.1)
    assert video.sample(4).times[-1] == pytest.approx(5.5, rel=0.1)


def test_an_opened_file_can_be_opened_again_without_decoding_it(tmp_path, monkeypatch):
    """As the turns of a chat keep it."""
    video = open_video(write(tmp_path / "a.mp4"))
    monkeypatch.setattr(FileFrames, "open", lambda *about: pytest.fail("decoded"))
    assert open_video(video.frames, video.fps) == video


def test_files_that_change_are_refused(tmp_path):
    path = write(tmp_path / "a.mp4")
    video = open_video(path)
    write(path, count=3)
    with pytest.raises(LuvcError, match=r"a\.mp4 changes its size, or has changed"):
        video.sample(4)
    write(path, (64, 64))
    with pytest.raises(LuvcError, match="changes its size"):
        video.sample(4)
    path.unlink()
    with pytest.raises(LuvcError, match=r"a\.mp4 cannot be read \(No such file"):
        video.sample(4)


def test_files_beyond_the_bounds_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4")
    with pytest.raises(LuvcError, match=r"64x48 pixels, the limit is 0\.003 megapixels"):
        open_video(path, megapixels=0.003)
    video = open_video(path, megapixels=0.0031)
    assert len(video.sample(COUNT).frames) == COUNT  # 20 pictures' pixels, and no more
    long = open_video(write(tmp_path / "b.mp4", count=24), megapixels=0.0031)
    with pytest.raises(LuvcError, match=r"24 frames of 64x48 pixels, the limit is 0\.062"):
        long.sample(24)
    monkeypatch.setattr(video_files, "MOST_FRAMES", 10)
    with pytest.raises(LuvcError, match="more than 10 frames: cut"):
        open_video(path)


def test_broken_files_are_refused(tmp_path):
    """Cut off anywhere or with bytes changed: frames, or a refusal that names the file."""
    whole, random = write(tmp_path / "a.avi").read_bytes(), np.random.default_rng(3)
    path, refused = tmp_path / "broken.avi", 0
    for trial in range(30):
        broken = bytearray(whole[: len(whole) * (trial + 1) // 30])
        for place in random.integers(0, len(broken), trial % 4):
            broken[place] = random.integers(0, 256)
        path.write_bytes(broken)
        try:
            open_video(path).sample(1)
        except LuvcError as error:
            refused += 1
            assert "broken.avi" in str(error)
    assert refused


@pytest.mark.parametrize(
    "text",
    ["#EXTM3U\n#EXTINF:10,\nfile://{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile '{}'\n"],
)
def test_a_file_opens_no_other(tmp_path, text):
    other, path = write(tmp_path / "a.mp4"), tmp_path / "list.mp4"
    path.write_text(text.format(other))
    with pytest.raises(LuvcError, match=r"list\.mp4 cannot be read"):
        open_video(path)


def test_without_pyav_the_mend_is_said(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(LuvcError, match=r"a\.mp4 is neither.*pip install 'luvc-export\[video\]'"):
        open_video(path)


def test_a_sound_is_no_video(tmp_path):
    path = tmp_path / "a.wav"
    with av.open(path, "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(LuvcError, match=r"a\.wav holds no video"):
        open_video(path)


def test_animated_pictures_are_still_pictures(tmp_path):
    """Pillow opens them, all frames at once, at the pace that is told."""
    frames = [Image.new("RGB", (8, 8), (60 * n, 0, 0)) for n in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    video = open_video(tmp_path / "a.gif", 4)
    assert not isinstance(video.frames, FileFrames) and len(video.frames) == 3 and video.fps == 4
