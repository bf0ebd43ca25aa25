"""Checkpoints on disk, written by Orbax, whose damage is noticed.

Every checkpoint contains the leaves of a pytree and a card with a checksum over all of them. A
checkpoint that cannot be read, or reads back as something else, is set aside as damaged, and the
one before is used.
"""

import contextlib
import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax.checks import InputError
from ifv_jax.engine.plain_path import plain_path
from ifv_jax.types import PyTree

log = logging.getLogger(__name__)

KEEP = 2
"""Number of checkpoints kept of a stage. If the newest one is damaged, another one is left."""

_LENGTH = 8
"""Number of bytes that encode the length of a card."""

_READ_BACK: set[Path] = set()
"""Folders in which this process has written a checkpoint and read it back."""


class DamagedError(Exception):
    """Raised for a checkpoint that cannot be read, or differs from what was written."""


class Stage:
    """The checkpoints of one stage, in a folder of their own.

    Args:
      folder: the folder of the run; None keeps nothing.
      name: name of the stage, and of its folder.
    """

    def __init__(self, folder: Path | None, name: str):
        self._folder = None if folder is None else folder / name

    def save(self, index: int, value: PyTree) -> bool:
        """Writes a checkpoint. A failure, such as a full disk, is logged and not raised.

        Args:
          index: number of the checkpoint; a larger number is newer.
          value: the pytree of arrays to keep.

        Returns:
          True if the checkpoint was written.

        Raises:
          InputError: the first checkpoint in this folder does not read back.
        """
        if self._folder is None:
            return False
        from ifv_jax.engine.bytes_handler import Bytes

        kept = _pack(value)
        try:
            with _quiet(), self._manager() as manager:
                manager.save(index, args=Bytes(kept), force=True)
                manager.wait_until_finished()
        except Exception as error:  # Orbax has several exceptions for a full disk.
            message = "Checkpoint %s/%d was not written (%s); going on."
            log.warning(message, self._folder, index, _first_line(error))
            return False
        if self._folder.parent not in _READ_BACK:
            self._read_back(index, value)
            _READ_BACK.add(self._folder.parent)
        return True

    def _read_back(self, index: int, value: PyTree) -> None:
        try:
            with self._manager() as manager:
                self._read(manager, index, value)
        except Exception as error:
            raise InputError(
                "a folder in which checkpoints can be kept",
                f"{self._folder}, where the first one cannot be read back ({_first_line(error)})",
                "Choose a folder on another disk, or with a plainer name.",
            ) from error

    def newest(self, like: PyTree | None = None) -> tuple[int, PyTree] | None:
        """Reads the newest checkpoint that is not damaged.

        Args:
          like: a pytree of the same structure, whose leaves do not matter. Without it, the value
            consists of dicts, lists and tuples.

        Returns:
          (index, value), or None if there is no such checkpoint.

        Raises:
          InputError: the value needs `like`, which is missing.
        """
        if self._folder is None or not self._folder.exists():
            return None
        try:
            with _quiet(), self._manager() as manager:
                for index in sorted(manager.all_steps(), reverse=True):
                    try:
                        return index, self._read(manager, index, like)
                    except InputError:
                        raise
                    except Exception as error:  # each kind of damage has its own exception
                        self._set_aside(index, error)
        except InputError:
            raise
        except Exception as error:  # Orbax's own files are damaged: no checkpoint can be used
            log.warning("Checkpoints in %s cannot be read (%s).", self._folder, _first_line(error))
        return None

    def _read(self, manager, index: int, like: PyTree | None) -> PyTree:
        from ifv_jax.engine.bytes_handler import Bytes

        return _unpack(manager.restore(index, args=Bytes()), like)

    def _set_aside(self, index: int, error: Exception) -> None:
        assert self._folder is not None
        message = "Checkpoint %s/%d is damaged (%s) and not used."
        log.warning(message, self._folder, index, _first_line(error))
        aside = self._folder / f"damaged_{index}"
        shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(OSError):
            (self._folder / str(index)).rename(aside)

    @contextlib.contextmanager
    def _manager(self) -> Iterator[Any]:
        assert self._folder is not None
        import orbax.checkpoint as ocp  # The import takes a second, so it waits until here.

        alone = {}
        if jax.process_count() > 1:  # hosts do not wait for each other's checkpoints
            here = jax.process_index()
            alone["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
                primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"host{here}"
            )
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEEP,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=False,
            create=False,
            **alone,
        )
        with (
            plain_path(self._folder) as folder,
            ocp.CheckpointManager(folder, options=options) as manager,
        ):
            yield manager


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences Orbax, which logs the stack of every failure, also of those handled here."""
    orbax = logging.getLogger("absl")
    before, orbax.disabled = orbax.disabled, True
    try:
        yield
    finally:
        orbax.disabled = before


@contextlib.contextmanager
def lock(folder: Path | None, name: str) -> Iterator[None]:
    """Lets one process at a time work on a stage. Another process logs once that it waits.

    Nothing is locked where that is impossible: on some network file systems, in a read-only folder,
    and on Windows.

    Args:
      folder: the folder of the run; None locks nothing.
      name: name of the stage.

    Yields:
      None.
    """
    with contextlib.ExitStack() as stack:
        if folder is not None:
            with contextlib.suppress(OSError, ImportError):
                import fcntl

                file = stack.enter_context((folder / f".{name}.lock").open("a"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    log.warning("Another process works on %s/%s: waiting for it.", folder, name)
                    fcntl.flock(file, fcntl.LOCK_EX)
        yield  # Closing the file unlocks it, and so does any end of the process.


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that it exists whole or not at all.

    Args:
      path: the file.
      text: its content.

    Raises:
      OSError: the file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")  # hosts may share the folder
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


# --- packing a pytree into bytes -----------------------------------------------------------------


def _pack(value: PyTree) -> bytes:
    """Packs a pytree into bytes: the length of a card, the card, the leaves.

    The card contains the leaves' dtypes and shapes, the structure, and a checksum of everything.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(value)]
    card = {
        "leaves": [[str(leaf.dtype), list(leaf.shape)] for leaf in leaves],
        "structure": _describe(value, iter(range(len(leaves)))),
    }
    data = [np.ascontiguousarray(leaf).reshape(-1).view(np.uint8) for leaf in leaves]
    text = json.dumps({**card, "sha256": _checksum(card, data)}).encode()
    head = len(text).to_bytes(_LENGTH, "little") + text
    return b"".join([head, *(part.data for part in data)])


def _unpack(whole: bytes, like: PyTree | None) -> PyTree:
    """Unpacks a pytree. Raises DamagedError if it differs by a bit from what was packed."""
    try:
        end = _LENGTH + int.from_bytes(whole[:_LENGTH], "little")
        card = json.loads(whole[_LENGTH:end])
        mark, leaves, parts = card.pop("sha256"), [], []
        for name, shape in card["leaves"]:
            dtype = jnp.dtype(name)
            start, end = end, end + dtype.itemsize * int(np.prod(shape, dtype=int))
            parts.append(np.frombuffer(whole[start:end], np.uint8))
            leaves.append(parts[-1].view(dtype).reshape(shape))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DamagedError("its card is not readable") from error
    if end != len(whole) or mark != _checksum(card, parts):
        raise DamagedError("its checksum is another")
    if like is None:
        return _rebuild(card["structure"], leaves)
    structure = jax.tree.structure(like)
    if structure.num_leaves != len(leaves):
        raise DamagedError(f"{len(leaves)} arrays where {structure.num_leaves} were expected")
    return jax.tree.unflatten(structure, leaves)


def _checksum(card: dict[str, Any], data: list[np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(card, sort_keys=True).encode())
    for part in data:
        digest.update(part.data)
    return digest.hexdigest()


def _describe(value: PyTree, numbers: Iterator[int]) -> Any:
    """Describes a structure in JSON: dicts (keys in JAX's order), lists, tuples, None, leaves.

    Leaves are numbered. Other nodes, and keys that are neither strings nor integers, need `like`
    to be restored.
    """
    if value is None:
        return None
    if type(value) is dict and all(isinstance(key, str | int) for key in value):
        keys = [path[0].key for path, _ in _children(value)]
        return {"dict": [[key, _describe(value[key], numbers)] for key in keys]}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_describe(item, numbers) for item in value]}
    children = _children(value)
    if len(children) == 1 and children[0][1] is value:
        return next(numbers)
    return {"other": [_describe(child, numbers) for _, child in children]}


def _children(value: PyTree):
    return jax.tree_util.tree_flatten_with_path(value, is_leaf=lambda node: node is not value)[0]


def _rebuild(structure: Any, leaves: list[np.ndarray]) -> PyTree:
    if structure is None:
        return None
    if isinstance(structure, int):
        return leaves[structure]
    ((kind, items),) = structure.items()
    if kind == "dict":
        return {key: _rebuild(item, leaves) for key, item in items}
    if kind in ("list", "tuple"):
        return {"list": list, "tuple": tuple}[kind](_rebuild(item, leaves) for item in items)
    raise InputError(
        "`like`, a value of the same structure, to read back more than dicts, lists and tuples",
        "none",
        "Pass it to `compute` or `read`.",
    )
