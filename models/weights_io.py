"""Variables and the card that describes them, as `.npz` with `.json` or as an Orbax folder."""

import json
import logging
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ifv_jax.engine.plain_path import local, plain_path
from models import checksums, npz
from models.checking import (
    CheckError,
    check,
    check_shapes,
    check_values,
    describe,
    fit,
    flatten,
    take,
)
from models.stored import Stored, looks_like

__all__ = [
    "check",
    "check_shapes",
    "check_values",
    "describe",
    "fit",
    "flatten",
    "load_arrays",
    "load_card",
    "load_folder",
    "load_folder_card",
    "save",
    "save_folder",
    "stored",
    "take",
]

_log = logging.getLogger(__name__)
_unsure: set[Path] = set()  # folders without checksums that have been logged
CARD, VARIABLES = "card.json", "variables"
AGAIN = "convert the weights again"


def save(path: str | Path, variables: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Writes variables and their card, each whole or not at all.

    Args:
      path: the `.npz` file; the card is the `.json` file beside it.
      variables: nested dicts of arrays.
      card: a description that JSON can represent.

    Raises:
      ValueError: the variables are something else.
    """
    path, arrays, text = local(path), _arrays(variables), _text(card)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **flatten(arrays))
    os.replace(temporary, path)
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path.with_suffix(".json"))


def stored(path: str | Path) -> Stored:
    """Opens an `.npz` file. Names and shapes are read now, the numbers on request.

    Args:
      path: the file.

    Returns:
      The arrays.

    Raises:
      ValueError: the file cannot be read.
    """
    path = local(path)
    try:
        found = npz.stored(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # each kind of damage has its own exception
        raise _unreadable(path, error) from error

    def read(names: Collection[str]) -> dict[str, np.ndarray]:
        try:
            return found.read(names)
        except Exception as error:
            raise _unreadable(path, error) from error

    return Stored(found.shapes, read)


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Reads all arrays of an `.npz` file.

    Args:
      path: the file.

    Returns:
      The arrays by name.

    Raises:
      ValueError: the file cannot be read.
    """
    found = stored(path)
    return found.read(list(found.shapes))


def load_card(path: str | Path) -> dict[str, Any]:
    """Reads the card beside weights.

    Args:
      path: the file of the weights.

    Returns:
      The card; empty if there is none.

    Raises:
      ValueError: the card cannot be read.
    """
    path = local(path).with_suffix(".json")
    return _read_card(path, "fetch it again") if path.is_file() else {}


def _unreadable(path: Path, error: Exception) -> ValueError:
    why = looks_like(path) or f"{type(error).__name__}: {error}"
    return ValueError(
        f"expected weights in {path}, got a file that cannot be read ({why}); "
        "fetch or train it again"
    )


def _arrays(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Checks that variables are nested dicts of arrays, and converts them to NumPy arrays."""
    for name, value in flatten(variables).items():
        if not hasattr(value, "shape") or not hasattr(value, "dtype"):
            raise ValueError(
                f"expected dicts of arrays, got a {type(value).__name__} as {name}; "
                "make it an array, or a dict with a name for each"
            )
    return jax.tree.map(np.asarray, dict(variables))


def _text(card: Mapping[str, Any]) -> str:
    return json.dumps(dict(card), indent=1) + "\n"


def _read_card(path: Path, do: str) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(card, dict):
            raise ValueError(f"a {type(card).__name__} without names")
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(
            f"expected a card in JSON, got {path}, which is none ({error}); {do}"
        ) from error
    return card


# Folders: an Orbax checkpoint, card.json and the checksums of all files


def save_folder(folder: str | Path, variables: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Writes variables, their card and checksums into a new folder, whole or not at all.

    Args:
      folder: the folder, which must not exist yet.
      variables: nested dicts of arrays.
      card: a description that JSON can represent.

    Raises:
      FileExistsError: the folder exists.
      ValueError: the variables are something else.
    """
    import orbax.checkpoint as ocp  # the import takes a second

    folder, arrays, text = check_new(folder), _arrays(variables), _text(card)
    # Written under another name first, so that the folder exists whole or not at all.
    temporary = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    with plain_path(temporary) as inside, ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(inside / VARIABLES, arrays)
    (temporary / CARD).write_text(text, encoding="utf-8")
    checksums.write(temporary)
    temporary.rename(folder)


def check_new(folder: str | Path) -> Path:
    """Checks that a folder for `save_folder` does not exist yet.

    Args:
      folder: the folder.

    Returns:
      Its absolute path.

    Raises:
      FileExistsError: the folder exists.
    """
    folder = local(folder).absolute()
    if folder.exists():
        raise FileExistsError(
            f"expected no folder {folder} yet, got one; delete it or choose another"
        )
    return folder


def load_folder(folder: str | Path, template: Any) -> dict[str, Any]:
    """Reads the variables in a folder that `save_folder` wrote.

    Args:
      folder: the folder.
      template: shapes and dtypes of the variables, nested.

    Returns:
      The variables.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: the folder is damaged, or contains other variables.
    """
    import orbax.checkpoint as ocp

    folder = local(folder).absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder at {folder}, got none; {AGAIN}")
    _verify(folder)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device), template
    )
    try:
        with plain_path(folder) as inside, ocp.StandardCheckpointer() as checkpointer:
            shapes = checkpointer.metadata(inside / VARIABLES).item_metadata
            check_shapes(flatten(shapes), flatten(template), folder)
            variables = checkpointer.restore(inside / VARIABLES, wanted)
    except CheckError:
        raise
    except Exception as error:  # Orbax has several exceptions for missing and damaged files
        raise ValueError(
            f"expected an Orbax checkpoint in {folder}, got one that cannot be read "
            f"({type(error).__name__}: {error}); {AGAIN}"
        ) from error
    check_values(flatten(variables), folder)
    return variables


def load_folder_card(folder: str | Path) -> dict[str, Any]:
    """Reads the card in a folder that `save_folder` wrote.

    Args:
      folder: the folder.

    Returns:
      The card.

    Raises:
      FileNotFoundError: there is no card.
      ValueError: the card is damaged.
    """
    folder = local(folder)
    path = folder / CARD
    if not path.is_file():
        raise FileNotFoundError(
            f"expected card.json in {folder}, got a folder without it; convert the weights again"
        )
    _verify(folder, CARD)
    return _read_card(path, AGAIN)


def _verify(folder: Path, only: str | None = None) -> None:
    try:
        known = checksums.verify(folder, only)
    except ValueError as error:
        raise ValueError(
            f"expected the weights in {folder} as they were written, got a damaged file that "
            f"cannot be read: {error}; {AGAIN}"
        ) from error
    if not known and folder.absolute() not in _unsure:
        _unsure.add(folder.absolute())
        message = "%s was written before there were checksums: damage would not be noticed; %s."
        _log.warning(message, folder, AGAIN)
