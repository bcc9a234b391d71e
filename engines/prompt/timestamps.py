"""When the steps of a video were seen, and how long it is, as a family's prompt says it."""

import re
from collections.abc import Callable
from datetime import timedelta

from ..bundle.layout import Layout
from .videos import Video

Step = tuple[float, float]
"""When its first and its last frame were seen, seconds."""
TIMES: dict[str, Callable[[Step], str]] = {
    "seconds": lambda step: f"{sum(step) / 2:.1f}",
    "begins": lambda step: f"{step[0]:.1f}",
    "begins_whole": lambda step: f"{int(step[0])}",
    "clock": lambda step: f"{int(step[0] // 60):02d}:{int(step[0] % 60):02d}",
}
"""Of the next step each: "1.5", "1.0", "1" and "00:01" for one from 1 s to 2 s."""
DURATION = "duration"
"""Of the video as it came: "0:01:05"."""
MARKS = re.compile("{(" + "|".join([*TIMES, DURATION]) + ")}")


def told(text: str, video: Video, layout: Layout) -> str:
    """The text with a sampled video's times in the places of its marks, such as "{seconds}"."""
    times, span = video.times, layout.frames // layout.tiles
    steps = ((times[i], times[i + span - 1]) for i in range(0, layout.frames, span))

    def said(mark: re.Match) -> str:
        if mark[1] == DURATION:
            return str(timedelta(seconds=int(video.duration)))
        return TIMES[mark[1]](next(steps))

    return MARKS.sub(said, text)
