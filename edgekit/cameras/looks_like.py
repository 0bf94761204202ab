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


def looks_like(start: bytes) -> str:
    """What a file is likely to be, judged by its first bytes; a clause for messages."""
    if not start:
        return "the file is empty."
    for magic, what in MAGIC.items():
        if start.startswith(magic):
            return f"it looks like {what}."
    if is_text(start):
        first_line = start.decode("utf-8", errors="ignore").strip().partition("\n")[0].strip()[:40]
        return f'it looks like a text file that begins with "{first_line}".'
    return "no decoder knows it. Likely cause: it is truncated (an mp4 whose recording was cut off has no index)."


def is_text(start: bytes) -> bool:
    """Whether the first 4096 bytes of a file (all of a shorter one) are UTF-8 text."""
    if b"\0" in start:
        return False
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(start) - 3 and len(start) >= 4096  # only the last character is cut
    return bool(start.strip())
