"""Finds the state dict in a checkpoint, and removes prefixes that wrappers add to its names.

A checkpoint is a state dict, or a dict that contains one or several beside epochs, optimizers and
arguments, perhaps at a deeper level. The key decides which state dict is meant. Where that leaves a
choice, the file is refused.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

_log = logging.getLogger(__name__)

KEYS = ("state_dict", "model_state_dict", "model_state", "model", "module", "net")
KEYS += ("net_state_dict", "network", "weights", "params", "state", "backbone", "encoder")
"""Keys of the network as it was trained."""

AVERAGES = ("ema", "swa", "average", "shadow", "teacher")
"""Words in keys of a running average of the network."""

OTHERS = ("optim", "sched", "scaler", "rng", "loss", "criterion", "args", "config", "hyper")
"""Beginnings of keys below which arrays belong to no network."""

PREFIXES = ("module.", "model.", "_orig_mod.", "net.", "network.", "backbone.", "encoder.")
PREFIXES += ("state_dict.",)
"""Prefixes that wrappers of modules add to names."""

COUNTERS = ("num_batches_tracked", "n_averaged")
"""Names of arrays that are not weights."""

DEEPEST = 3
"""Number of levels that are searched."""


def find(content: Any, is_array: Callable[[Any], bool], source: Any) -> dict[str, Any]:
    """Finds the state dict in a checkpoint.

    Args:
      content: the content of the checkpoint.
      is_array: tells arrays from other values.
      source: the file, for messages.

    Returns:
      The arrays by name.

    Raises:
      ValueError: there is no state dict, or several that are equally likely.
    """
    found = dict(_candidates(content, is_array, ()))
    if not found:
        raise ValueError(f"expected a state dict in {source}, got {_describe(content)}; {_do()}")
    averages = {path: state for path, state in found.items() if _is_average(path)}
    chosen = {path: state for path, state in found.items() if path not in averages} or averages
    for narrower in (_usual, _wrapped):
        if len(chosen) > 1:
            chosen = {path: s for path, s in chosen.items() if narrower(path)} or chosen
    if len(chosen) > 1:
        names = ", ".join(_name(path) for path in chosen)
        raise ValueError(
            f"expected one state dict in {source}, got several ({names}); {_do(next(iter(chosen)))}"
        )
    ((path, state),) = chosen.items()
    if averages and path not in averages:
        others = ", ".join(_name(other) for other in averages)
        _log.warning(
            "%s holds %s and its average %s: the former is used", source, _name(path), others
        )
    return state


def _candidates(
    content: Any, is_array: Callable[[Any], bool], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if not isinstance(content, Mapping):
        return
    arrays = {k: v for k, v in content.items() if isinstance(k, str) and is_array(v)}
    if any(not name.endswith(COUNTERS) for name in arrays):
        yield path, arrays
    for key, value in content.items():
        if not isinstance(key, str) or len(path) == DEEPEST or key.lower().startswith(OTHERS):
            continue
        yield from _candidates(value, is_array, (*path, key))


def _is_average(path: tuple[str, ...]) -> bool:
    return any(word in key.lower().split("_") for key in path for word in AVERAGES)


def _usual(path: tuple[str, ...]) -> bool:
    return bool(path) and all(key.lower() in KEYS for key in path)


def _wrapped(path: tuple[str, ...]) -> bool:
    return bool(path)


def _name(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the outermost"


def _do(path: tuple[str, ...] = ("state_dict",)) -> str:
    keys = "".join(f"[{key!r}]" for key in path)
    return (
        "save the one that is wanted by itself: "
        f"torch.save(torch.load(FILE, weights_only=False){keys}, OTHER)"
    )


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        keys = ", ".join(str(key) for key in list(content)[:8])
        return f"a dict without any ({keys or 'empty'})"
    return f"a {type(content).__name__}"


def strip(names: Iterable[str], source: Any) -> dict[str, str]:
    """Removes the prefixes that all names share, and the counters.

    Args:
      names: the names in the file.
      source: the file, for messages.

    Returns:
      name in the file -> shorter name.

    Raises:
      ValueError: two names become equal.
    """
    shorter = {
        # A compiled module has this in its name at any place in the network.
        name: name.replace("_orig_mod.", "")
        for name in names
        if not name.endswith(COUNTERS)
    }
    while prefix := next((p for p in PREFIXES if _shared(p, shorter.values())), None):
        shorter = {name: short.removeprefix(prefix) for name, short in shorter.items()}
    if len(set(shorter.values())) < len(shorter):
        raise ValueError(
            f"expected a state dict of different names in {source}, got some that differ by "
            "_orig_mod. alone; save the state dict of the module before it was compiled"
        )
    return shorter


def _shared(prefix: str, names: Iterable[str]) -> bool:
    names = list(names)
    return bool(names) and all(name.startswith(prefix) and name != prefix for name in names)
