"""The identity of a training: its recipe, its data, its first weights and its program.

The file `recipe.json` in the folder of the training records them. A training that differs is
refused before anything in the folder is changed. If an older folder lacks one of them, the training
continues, and the record is completed.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FILE = "recipe.json"
CONTENTS = "contents"


def check(out: Path, recipe: Any, contents: Mapping[str, Callable[[], str]]) -> None:
    """Checks that a folder is new or belongs to this training, and records the training.

    Args:
      out: the folder, which is created if it does not exist.
      recipe: a NamedTuple that JSON can represent.
      contents: other parts of the identity by name, as functions that return a hash, cheap ones
        first.

    Raises:
      ValueError: the folder belongs to another training, or its record cannot be read.
    """
    path, mine = out / FILE, recipe._asdict()
    if not path.exists():
        if any((out / "checkpoints").glob("[0-9]*")):
            raise ValueError(
                f"expected {FILE} beside the checkpoints in {out}, got none; "
                "choose another --out, or delete the checkpoints"
            )
        out.mkdir(parents=True, exist_ok=True)
        _write(path, {**mine, CONTENTS: {name: mark() for name, mark in contents.items()}})
        return
    old = _read(path)
    for name, value in mine.items():
        if old.get(name) != value:
            raise ValueError(
                f"expected {name} = {old.get(name)}, with which the training in {out} "
                f"began, got {value}; continue with the old value or choose another --out"
            )
    known, new = old.get(CONTENTS, {}), {}
    for name, mark in contents.items():
        value = mark()
        if name not in known:
            new[name] = value
        elif known[name] != value:
            raise ValueError(
                f"expected the {name} with which the training in {out} began (hash {known[name]}), "
                f"got other than these (hash {value}); continue with the old, or choose another "
                f"--out{_PROGRAM if name == 'program' else ''}"
            )
    if new:
        _write(path, {**old, CONTENTS: {**known, **new}})
        print(f"recorded in {path}, where they were not yet: {', '.join(new)}", flush=True)


_PROGRAM = (
    " (the network, loss, optimizer or version of JAX is another; if that changes no numbers, "
    f'delete the entry "program" from {FILE} to go on)'
)


def _read(path: Path) -> dict[str, Any]:
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(old, dict) or not isinstance(old.get(CONTENTS, {}), dict):
            raise ValueError("no names and values")
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(
            f"expected the recipe of a training in {path}, got a file that cannot be read "
            f"({error}); mend it, or choose another --out"
        ) from error
    return old


def _write(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, path)
