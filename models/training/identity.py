"""What makes a training the training it is: its recipe, its data, its first weights, its program.

They are kept in `recipe.json` in the folder of the training; one that differs is refused, before
anything in the folder is changed. A folder from before one of them was kept goes on, and has it
from then on.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FILE = "recipe.json"
CONTENTS = "contents"


def check(out: Path, recipe: Any, contents: Mapping[str, Callable[[], str]]) -> None:
    """Make the folder `out` that of this training, or raise if it is that of another.

    Args:
      out: the folder, which need not exist.
      recipe: a NamedTuple of what JSON can hold.
      contents: what the recipe does not say, by its name in words: functions that return a hash,
        cheap ones first.
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
