"""Variables in one `.npz` file beside a `.json` card that says what they are."""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util


def flatten(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Nested variables to one level, named like `params/conv1/kernel`."""
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    return {str(name): np.asarray(value) for name, value in flat.items()}


def save(path: str | Path, variables: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Write `path` (.npz) and its card (.json beside it); each appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **flatten(variables))
    os.replace(temporary, path)
    temporary.write_text(json.dumps(dict(card), indent=1) + "\n")
    os.replace(temporary, path.with_suffix(".json"))


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"expected weights in {path}, got a file that cannot be read ({error}); "
            "fetch or train it again"
        ) from error


def fit(arrays: Mapping[str, np.ndarray], template: Any, source: str | Path) -> dict[str, Any]:
    """Nest named arrays like `template` (shapes and dtypes), or name the first that does not fit."""
    expected = traverse_util.flatten_dict(template, sep="/")
    for name, want in expected.items():
        if name not in arrays:
            got = "none"
        elif (got := describe(arrays[name])) == describe(want):
            continue
        raise ValueError(
            f"expected the array {name} of {describe(want)} in {source}, got {got}; "
            "the file belongs to another architecture or is damaged: fetch or train it again"
        )
    for name in arrays:
        if name not in expected:
            raise ValueError(
                f"expected no array {name} in {source}, got {describe(arrays[name])}; "
                "the file belongs to another architecture: load it with the network it was made for"
            )
    for name in expected:
        if not np.isfinite(arrays[name]).all():
            raise ValueError(
                f"expected finite numbers in the array {name} of {source}, got nan or inf; "
                "fetch or train it again"
            )
    flat = {name: jax.numpy.asarray(arrays[name]) for name in expected}
    return traverse_util.unflatten_dict(flat, sep="/")


def describe(array: Any) -> str:
    """Dtype and shape, for messages."""
    return f"{np.dtype(array.dtype)} {tuple(array.shape)}"
