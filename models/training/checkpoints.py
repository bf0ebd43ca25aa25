"""Checkpoints of a training that survive kill -9, written by Orbax, with a checksum."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from ifv_jax.engine.fingerprints import fingerprint
from ifv_jax.engine.plain_path import plain_path

KEEP = 2
"""Number of checkpoints that are kept. If the newest is damaged, the one before it is used."""

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def manager(folder: str | Path, every: int) -> Iterator[ocp.CheckpointManager]:
    """Provides an Orbax manager whose saves are durable when they return.

    Args:
      folder: folder of the checkpoints.
      every: number of steps between two checkpoints.

    Yields:
      The manager.
    """
    options = ocp.CheckpointManagerOptions(
        max_to_keep=KEEP, save_interval_steps=every, enable_async_checkpointing=False
    )
    with plain_path(Path(folder)) as inside, ocp.CheckpointManager(inside, options=options) as made:
        yield made


def save(checkpoints: ocp.CheckpointManager, step: int, state: Any) -> None:
    """Saves a state if a checkpoint is due at this step.

    Args:
      checkpoints: the manager.
      step: number of the step.
      state: a pytree of arrays.
    """
    if checkpoints.should_save(step):
        kept = {"state": state, "checksum": _checksum(step, state)}
        checkpoints.save(step, args=ocp.args.StandardSave(kept))


def restore(checkpoints: ocp.CheckpointManager, template: Any) -> tuple[int, Any]:
    """Reads the newest checkpoint that is not damaged. Damaged ones are deleted.

    Args:
      checkpoints: the manager.
      template: a state of the same structure.

    Returns:
      Step and state; (0, template) if there is no checkpoint.
    """
    # Converted to NumPy, because arrays that are bound to a device would be compiled for again.
    like = jax.tree.map(np.asarray, template)
    for step in sorted(checkpoints.all_steps(), reverse=True):
        try:
            return step, jax.tree.map(jnp.asarray, _read(checkpoints, step, like))
        except Exception as error:  # Orbax raises a different type for each kind of damage
            why = f"{type(error).__name__}: {error}"[:300]  # TensorStore's messages fill pages
            _log.warning("checkpoint %d cannot be read (%s): deleted", step, why)
            checkpoints.delete(step)
    return 0, template


def _read(checkpoints: ocp.CheckpointManager, step: int, like: Any) -> Any:
    kept = {"state": like, "checksum": np.zeros(8, np.uint8)}
    try:
        found = checkpoints.restore(step, args=ocp.args.StandardRestore(kept))
    except Exception as error:
        try:  # older checkpoints have no checksums
            state = checkpoints.restore(step, args=ocp.args.StandardRestore(like))
        except Exception:
            raise error from None
        _log.warning("checkpoint %d was saved without a checksum: it is used as it is", step)
        return state
    if not np.array_equal(found["checksum"], _checksum(step, found["state"])):
        raise ValueError("its checksum is another")
    return found["state"]


def _checksum(step: int, state: Any) -> np.ndarray:
    """Hashes the step and all leaves with their places to (8,) uint8."""
    return np.frombuffer(bytes.fromhex(fingerprint(step, state)), np.uint8)
