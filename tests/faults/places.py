"""Places that nothing can be written to, and drafts of processes that have ended."""

from pathlib import Path

DEAD = "00000000-0123456789abcdef"  # ends a draft's name; no process holds it


def bad_places(folder: Path) -> list[tuple[Path, str]]:
    """Places for no file and no folder, each with what is said of it."""
    loop, dangling = folder / "loop", folder / "dangling"
    loop.symlink_to(loop)
    dangling.symlink_to(folder / "nowhere" / "at" / "all")
    return [
        (loop, "links lead in a circle"),
        (loop / "x", "links lead in a circle"),
        (dangling / "x", "dangling is no folder with write access"),
        (folder / ("a" * 300), "is too long: a name may have 195 bytes"),
        (folder / ("é" * 110), "is too long"),
        (folder / ("a" * 300) / "x", "is too long"),
        (folder.joinpath(*["a" * 100] * 40), "a path 3796"),
        (folder / "a\0b", "holds control characters; name another place"),
        (folder / "a\nb" / "c", "holds control characters"),
        (folder / "\x1b[2J", "holds control characters"),
        (folder / "\udcff", "holds control characters"),
    ]
