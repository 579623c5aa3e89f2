"""No image disappears in silence: which files are taken, and one sentence for those that are not."""

from __future__ import annotations

import functools
import os
import sys

from tok1d.data.decode import HEIC, INSTALL_HEIF, SUFFIXES, can_open_heic

LeftOut = dict[str, list[str]]  # why -> names

HIDDEN = "hidden"
SAME = "the same file under another name"
REPLACED = "replaced by a later file of the same name"
MAP = "a map or preview of another image"
OTHER_KIND = "another format of the image before"
LOST = "a link to what is not there"
UNLISTED = "a folder that cannot be listed"
UNFINISHED = "a shard in a folder that begins with _"
RAW = {
    ".raw", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf",
    ".pef",
}  # fmt: skip
DRAWN = {
    ".svg", ".psd", ".psb", ".xcf", ".eps", ".ai", ".ico", ".cur", ".pdf", ".jxl", ".jxr", ".exr", ".hdr",
    ".dds", ".pfm", ".emf", ".wmf",
}  # fmt: skip
PACKED = {
    ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".7z", ".rar",
}  # fmt: skip
VIDEO = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".mjpg", ".mjpeg"}


def suffix_of(path: str) -> str:
    """A file's suffix in lower case, `.tar.gz` in one."""
    stem, suffix = os.path.splitext(path.lower())
    return f".tar{suffix}" if stem.endswith(".tar") else suffix


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder on the way to it, is hidden."""
    return any(part.startswith(".") and part not in (".", "..") for part in path.split("/"))


def is_picture(suffix: str) -> bool:
    """Whether files of a suffix, in lower case, are taken for photographs."""
    return suffix in SUFFIXES or (suffix in HEIC and can_open_heic())


def not_opened(suffix: str) -> str | None:
    """Why files of a suffix, in lower case, may hold images that are not taken; None for no images."""
    if suffix in HEIC:
        return INSTALL_HEIF
    for kinds, what in (
        (RAW, "a raw photograph: develop it to .jpg or .png"),
        (DRAWN, "no photograph that is opened here: save it as .png"),
        (PACKED, "an archive: unpack it"),
        (VIDEO, "a video: write its frames as .jpg or .png"),
    ):
        if suffix in kinds:
            return f"{suffix} is {what}"
    return None


def enumerated(left_out: LeftOut) -> str:
    """`3 files (hidden; such as .a.jpg)` for each reason."""
    parts = []
    for why, names in left_out.items():
        first = names[0] if len(names) == 1 else f"such as {names[0]}"
        parts.append(f"{len(names)} {'file' if len(names) == 1 else 'files'} ({why}; {first})")
    return ", ".join(parts)


def say_left_out(left_out: LeftOut, where: str) -> None:
    if left_out:
        say(f"left out of {where}: {enumerated(left_out)}")


@functools.cache
def say(sentence: str) -> None:
    """Print a sentence, once in a process, in whatever characters the screen has."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(sentence.encode(encoding, "replace").decode(encoding), flush=True)
