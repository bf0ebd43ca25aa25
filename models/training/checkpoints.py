"""Checkpoints of a training that survive kill -9, by Orbax."""

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

KEEP = 2  # the newest may be damaged, then the one before it is used

_log = logging.getLogger(__name__)


def manager(folder: str | Path, every: int) -> ocp.CheckpointManager:
    """Manager that saves at each `every`-th step, and returns from a save when it is durable."""
    options = ocp.CheckpointManagerOptions(
        max_to_keep=KEEP, save_interval_steps=every, enable_async_checkpointing=False
    )
    return ocp.CheckpointManager(Path(folder).absolute(), options=options)


def save(checkpoints: ocp.CheckpointManager, step: int, state: Any) -> None:
    """Save the pytree of arrays `state`, if it is the turn of this step."""
    checkpoints.save(step, args=ocp.args.StandardSave(state))


def restore(checkpoints: ocp.CheckpointManager, template: Any) -> tuple[int, Any]:
    """Step and state of the newest checkpoint that can be read; (0, template) if there is none.

    A damaged checkpoint is deleted, so that its step can be saved again.
    """
    # By way of NumPy: arrays that are bound to a device would have programs compiled for them anew.
    like = ocp.args.StandardRestore(jax.tree.map(np.asarray, template))
    for step in sorted(checkpoints.all_steps(), reverse=True):
        try:
            return step, jax.tree.map(jnp.asarray, checkpoints.restore(step, args=like))
        except Exception as error:  # Orbax raises a different type for each kind of damage
            _log.warning("checkpoint %d cannot be read (%s): deleted", step, error)
            checkpoints.delete(step)
    return 0, template
