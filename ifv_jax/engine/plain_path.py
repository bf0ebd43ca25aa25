"""Paths that Orbax, or a library below it, does not take literally, and links to replace them.

Orbax reads brackets, `*` and `?` as a pattern: it keeps nothing in `a[b]`, and in `a*b` it also
reads the files of `axb`. TensorStore reads a backslash as a separator and writes `a\\b` into `a/b`.
etils reads a first component `gs`, or one that ends in `gs:`, as a bucket in a cloud. A symbolic
link with a harmless name avoids all of this.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ifv_jax.checks import InputError

_CLOUDS = ("gs", "s3", "az", "hf")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # C:/ has one letter and is a drive
_PATTERN = set("*?[]") if os.sep == "\\" else set("*?[]\\")


def local(path: str | os.PathLike) -> Path:
    """Checks a path on this machine and replaces `~` by the home folder.

    Args:
      path: the path of a file or folder.

    Returns:
      The path.

    Raises:
      InputError: the path is empty, or an address such as `gs://..`.
    """
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
    return Path(os.path.expanduser(text))  # unchanged if there is no such user


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """Provides an absolute path of a folder that Orbax takes literally.

    Args:
      folder: the folder, which is created if it does not exist.

    Yields:
      The folder's own path, or a link to it in a temporary folder. The link is removed when the
      block ends.

    Raises:
      InputError: the temporary folder's path is not taken literally, either.
    """
    folder = Path(os.path.abspath(folder))
    folder.mkdir(parents=True, exist_ok=True)
    if is_literal(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="ifv_jax_") as temporary:  # removes only the link
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
    """Tells whether Orbax takes an absolute path literally.

    Args:
      folder: the path.

    Returns:
      True if it does.
    """
    text = str(folder)
    try:
        text.encode()
    except UnicodeEncodeError:  # TensorStore refuses bytes that are not text
        return False
    cloud = "gs:/" in f"{text}/" or (len(folder.parts) > 1 and folder.parts[1] in _CLOUDS)
    return not cloud and not _PATTERN & set(text)
