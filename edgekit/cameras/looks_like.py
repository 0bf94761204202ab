"""Say what a file is that was given for a video or a picture by mistake."""

from __future__ import annotations

MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF document",
    b"\x7fELF": "a program",
    b"SQLite format 3": "a database",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
}
"""First bytes of files that are often given by mistake."""

START_BYTES = 4096
"""How much of a file these functions want to see."""


def looks_like(start: bytes) -> str:
    """What a file is likely to be, judged by its first :data:`START_BYTES`; a sentence for messages."""
    if not start:
        return "the file is empty."
    if known := other_format(start):
        return f"it looks like {known}."
    return "no decoder knows it. Likely cause: it is truncated (an mp4 whose recording was cut off has no index)."


def other_format(start: bytes) -> str | None:
    """What the file is, if that is certain and not a video."""
    for magic, what in MAGIC.items():
        if start.startswith(magic):
            return what
    if is_text(start):
        first_line = start.decode("utf-8", errors="ignore").strip().partition("\n")[0].strip()[:40]
        return f'a text file that begins with "{first_line}"'
    return None


def is_text(start: bytes) -> bool:
    """Whether the first :data:`START_BYTES` of a file (all of a shorter one) are UTF-8 text."""
    if b"\0" in start:
        return False
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= START_BYTES - 3 and len(start) >= START_BYTES  # only the last character is cut
    return bool(start.strip())
