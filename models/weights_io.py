"""Variables beside a card that says what they are: one `.npz` and `.json`, or an Orbax folder."""

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util


def flatten(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Nested variables (arrays, or their shapes) to one level, named like `params/conv1/kernel`."""
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    return {str(name): value for name, value in flat.items()}


def save(path: str | Path, variables: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Write `path` (.npz) and its card (.json beside it); each appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **jax.tree.map(np.asarray, flatten(variables)))
    os.replace(temporary, path)
    temporary.write_text(json.dumps(dict(card), indent=1) + "\n")
    os.replace(temporary, path.with_suffix(".json"))


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file."""
    path = Path(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"expected weights in {path}, got a file that cannot be read ({error}); "
            "fetch or train it again"
        ) from error


def load_card(path: str | Path) -> dict[str, Any]:
    """The card beside the weights `path`; empty if there is none."""
    path = Path(path).with_suffix(".json")
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise ValueError(
            f"expected a card in JSON, got {path}, which is none ({error}); fetch it again"
        ) from error


def check(arrays: Mapping[str, np.ndarray], expected: Mapping[str, Any], source: Any) -> None:
    """Raise, naming the first array that is missing, too many, misshapen or not finite."""
    for name, want in expected.items():
        got = describe(arrays[name]) if name in arrays else "none"
        if got != describe(want):
            raise ValueError(
                f"expected the array {name} of {describe(want)} in {source}, got {got}; "
                "the file is damaged or of another architecture: fetch it or train it again"
            )
        if not np.isfinite(arrays[name]).all():
            raise ValueError(
                f"expected finite numbers in the array {name} of {source}, got nan or infinity; "
                "the file is damaged: fetch it or train it again"
            )
    for name in arrays:
        if name not in expected:
            raise ValueError(
                f"expected no array {name} in {source}, got one of {describe(arrays[name])}; "
                "the file is of another architecture: load it with the network it was made for"
            )


def fit(arrays: Mapping[str, np.ndarray], template: Any, source: Any) -> dict[str, Any]:
    """Nest arrays named like `params/conv1/kernel` as `template`, after `check`."""
    expected = flatten(template)
    check(arrays, expected, source)
    flat = {name: jnp.asarray(arrays[name]) for name in expected}
    return traverse_util.unflatten_dict(flat, sep="/")


def describe(array: Any) -> str:
    """Dtype and shape, for messages."""
    return f"{np.dtype(array.dtype)} {tuple(array.shape)}"


# Folders: an Orbax checkpoint and card.json


def save_folder(folder: str | Path, variables: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Write an Orbax checkpoint of the variables and their card into a new folder."""
    import orbax.checkpoint as ocp  # imported late: it costs a second

    folder = Path(folder).absolute()
    if folder.exists():
        raise FileExistsError(
            f"expected no folder {folder} yet, got one; delete it or choose another"
        )
    # Made under another name first, so that the folder is there whole or not at all.
    temporary = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(temporary / "variables", dict(variables))
    (temporary / "card.json").write_text(json.dumps(dict(card), indent=1) + "\n")
    temporary.rename(folder)


def load_folder(folder: str | Path, template: Any) -> dict[str, Any]:
    """The variables in a folder of `save_folder`, of the shapes in `template`."""
    import orbax.checkpoint as ocp

    folder = Path(folder).absolute()
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device), template
    )
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            variables = checkpointer.restore(folder / "variables", wanted)
    except Exception as error:  # whatever Orbax makes of a missing or damaged file
        raise ValueError(
            f"expected an Orbax checkpoint in {folder}, got one that cannot be read "
            f"({type(error).__name__}: {error}); convert the weights again"
        ) from error
    check(flatten(variables), flatten(template), folder)
    return variables


def load_folder_card(folder: str | Path) -> dict[str, Any]:
    """The card in a folder of `save_folder`."""
    path = Path(folder) / "card.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"expected card.json in {folder}, got a folder without it; convert the weights again"
        )
    return dict(json.loads(path.read_text()))
