"""Folders whose names Orbax, or a library below it, does not take literally.

Brackets, `*` and `?` are a pattern to Orbax: it keeps nothing in `a[b]`, and in `a*b` it also reads
what lies in `axb`. A backslash is a separator to TensorStore, which writes `a\\b` into `a/b`. A
first component `gs`, or one that ends in `gs:`, is a cloud's bucket to etils. A link of a harmless
name holds for all of them.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ifv_jax.checks import InputError

_CLOUDS = ("gs", "s3", "az", "hf")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # two letters or more: C:/ is a drive
_PATTERN = set("*?[]") if os.sep == "\\" else set("*?[]\\")


def local(path: str | os.PathLike) -> Path:
    """The path with `~` replaced by the home folder; addresses (`gs://..`) are refused."""
    text = os.fspath(path)
    if not isinstance(text, str) or not text:
        raise InputError("the path of a file or folder", repr(path), "Give its name.")
    address = _ADDRESS.match(text)
    if address and not Path(address[0]).exists():
        raise InputError(
            "a path on this machine",
            text,
            "Name a local folder, and copy it from or to there by other means.",
        )
    return Path(os.path.expanduser(text))  # as it is where there is no such user


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """An absolute path of the folder that Orbax takes literally, for as long as the block lasts.

    This is the folder's own, or else a link to it in a temporary folder. The folder is made.
    """
    folder = Path(os.path.abspath(folder))
    folder.mkdir(parents=True, exist_ok=True)
    if is_literal(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="ifv_jax_") as temporary:  # removes the link alone
        link = Path(os.path.abspath(temporary)) / "folder"
        if not is_literal(link):
            raise InputError(
                "a folder for temporary files whose name has no brackets, *, ? or backslash",
                temporary,
                f"Set TMPDIR to another one, or name {folder} differently.",
            )
        link.symlink_to(folder, target_is_directory=True)
        yield link


def is_literal(folder: Path) -> bool:
    """Whether Orbax takes this absolute path as it stands."""
    text = str(folder)
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes that are no text, which TensorStore refuses
        return False
    cloud = "gs:/" in f"{text}/" or (len(folder.parts) > 1 and folder.parts[1] in _CLOUDS)
    return not cloud and not _PATTERN & set(text)
