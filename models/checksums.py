"""Checksums of all files of a folder, kept in the folder, so that flipped bits are noticed.

`checksums.txt` has a line `SHA-256  path` for each file, in the format of `sha256sum`. Its last
line is the checksum of its other lines.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

FILE = "checksums.txt"


def write(folder: Path) -> None:
    """Writes the checksums of all files below a folder.

    Args:
      folder: the folder.
    """
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / FILE)
    digests = {path.relative_to(folder).as_posix(): _digest(path) for path in paths}
    (folder / FILE).write_bytes(_text(digests))


def verify(folder: Path, only: str | None = None) -> bool:
    """Compares files with their checksums.

    Args:
      folder: the folder.
      only: path of a single file to compare; by default all files are.

    Returns:
      True if there are checksums and they agree, False if there are none.

    Raises:
      ValueError: a file is missing or damaged; the message names it.
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
