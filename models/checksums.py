"""Checksums of all files of a folder, kept in the folder, so that no flipped bit goes unnoticed.

`checksums.txt` has a line `SHA-256  path` for each file, as `sha256sum` writes it, and a last one
of its own lines before.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

FILE = "checksums.txt"


def write(folder: Path) -> None:
    """Write the checksums of all files below the folder."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / FILE)
    digests = {path.relative_to(folder).as_posix(): _digest(path) for path in paths}
    (folder / FILE).write_bytes(_text(digests))


def verify(folder: Path, only: str | None = None) -> bool:
    """Whether there are checksums, which then hold for all files, or for `only` this one.

    Raises:
      ValueError: a file is missing or is not what was written; the message names it.
    """
    if not (folder / FILE).exists():
        return False
    for name, digest in _read(folder / FILE).items():
        if only not in (None, name):
            continue
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is not there")
        if _digest(path) != digest:
            raise ValueError(f"{name} is not what was written")
    return True


def _read(path: Path) -> dict[str, str]:
    content = path.read_bytes()
    try:
        lines = content.decode("utf-8").splitlines()[:-1]
        digests = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except ValueError:
        digests = {}
    if _text(digests) != content:
        raise ValueError(f"{FILE} is not what was written")
    return digests


def _text(digests: Mapping[str, str]) -> bytes:
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()
    return lines + f"{hashlib.sha256(lines).hexdigest()}  {FILE}\n".encode()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
