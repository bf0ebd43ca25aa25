"""Long runs: named stages whose results and intermediate states survive kill -9 (Orbax).

A `Run` is a folder. `run.compute(name, kind, function)` computes a result once and reads it ever
after; `run.iterate(name, state, step, steps)` repeats a step and continues from its newest whole
checkpoint. Both are deterministic if the functions are: an interrupted run ends in the same bits.
"""

import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax.errors import InputError
from ifv_jax.types import PyTree

log = logging.getLogger(__name__)
T = TypeVar("T")

KEEP = 2
"""Checkpoints kept of a stage, so that a damaged newest one leaves another to go on from."""


def fingerprint(*parts) -> str:
    """A short hash of arrays, pytrees of arrays and anything with a stable `repr`."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(parts, is_leaf=lambda x: x is None):
        if isinstance(leaf, jax.Array | np.ndarray):
            if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                leaf = jax.random.key_data(leaf)
            leaf = np.asarray(leaf)
            digest.update(f"{leaf.dtype}{leaf.shape}".encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
        else:
            digest.update(repr(leaf).encode())
    return digest.hexdigest()[:16]


class Run:
    """Checkpoints of one job in one folder; `Run(None)` keeps nothing.

    Args:
      folder: where to keep them; made if absent.
      job: what makes the job what it is (configuration, seed, targets, weights, ...). A folder that
        holds another job is refused rather than mixed up with.
    """

    def __init__(self, folder: str | Path | None, job: PyTree = None):
        self.folder = None if folder is None else Path(folder).absolute()
        self._job = job
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        mark, card = fingerprint(job), self.folder / "job.json"
        if not card.exists():
            _write_whole(card, json.dumps({"fingerprint": mark}))
        found = json.loads(card.read_text()).get("fingerprint")
        if found != mark:
            raise InputError(
                f"a new folder or one that holds this very job ({mark})",
                f"{self.folder}, which holds another ({found})",
                "Choose another folder, or delete this one to start again.",
            )

    def part(self, name: str, job: PyTree = None) -> "Run":
        """A run of its own in a sub-folder, for a stage made of stages.

        With a `job` the folder's name carries its fingerprint: another job has another folder.
        """
        if self.folder is None:
            return Run(None)
        return Run(self.folder / (name if job is None else f"{name}_{fingerprint(job)}"), job)

    def compute(self, name: str, kind: Callable[..., T], function: Callable[[], T]) -> T:
        """function() once; afterwards, in this or a later process, what it returned.

        `kind` is the NamedTuple type of the result; its fields are arrays or pytrees of dicts.
        """
        stage = _Stage(self.folder, name)
        found = stage.newest(None)
        if found is None:
            value = function()
            stage.save(0, value._asdict())  # type: ignore[attr-defined]
            return value
        return kind(**found[1])

    def iterate(
        self,
        name: str,
        state: PyTree,
        step: Callable[[PyTree], PyTree],
        steps: int,
        *,
        every: int = 1,
        progress: Callable[[int], object] | None = None,
        finished: Callable[[PyTree], bool] | None = None,
    ) -> PyTree:
        """step applied `steps` times, saved after each `every` of them and at the end.

        `progress(n)` is told how many steps were gained; `finished(state)` may end it early.
        """
        stage = _Stage(self.folder, name)
        found = stage.newest(state)
        index = 0
        if found is not None:
            index, state = found
            if progress is not None:
                progress(index)
        while index < steps and not (finished is not None and finished(state)):
            state = step(state)
            index += 1
            if progress is not None:
                progress(1)
            if index % every == 0 or index == steps:
                stage.save(index, state)
        return state

    def forget(self, name: str) -> None:
        """Deletes a stage's checkpoints, once something finished has taken their place."""
        if self.folder is not None:
            shutil.rmtree(self.folder / name, ignore_errors=True)


class _Stage:
    """The Orbax checkpoints of one stage."""

    def __init__(self, folder: Path | None, name: str):
        self._folder = None if folder is None else folder / name

    def _manager(self):
        assert self._folder is not None
        import orbax.checkpoint as ocp  # Imported late: it costs a second.

        here = jax.process_index()
        alone = {}
        if jax.process_count() > 1:  # hosts keep different things at different times: no waiting
            self._folder.mkdir(parents=True, exist_ok=True)
            alone["create"] = False
            alone["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
                primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"host{here}"
            )
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEEP, cleanup_tmp_directories=True, enable_async_checkpointing=False,
            **alone,
        )  # fmt: skip
        return ocp.CheckpointManager(self._folder, options=options)

    def save(self, index: int, value: PyTree) -> None:
        if self._folder is None:
            return
        import orbax.checkpoint as ocp

        value = jax.tree.map(_storable, value)
        try:
            with self._manager() as manager:
                manager.save(index, args=ocp.args.StandardSave(value), force=True)  # type: ignore[call-arg]
                manager.wait_until_finished()
        except Exception as error:  # A full disk reaches us as whatever Orbax made of it.
            log.warning(
                "Checkpoint %s/%d was not written (%s); going on.", self._folder, index, error
            )

    def newest(self, like: PyTree | None):
        """(index, value) of the newest checkpoint that can be read, or None."""
        if self._folder is None or not self._folder.exists():
            return None
        import orbax.checkpoint as ocp

        with self._manager() as manager:
            for index in sorted(manager.all_steps(), reverse=True):
                try:
                    target = None if like is None else jax.tree.map(_storable, like)
                    value = manager.restore(index, args=ocp.args.StandardRestore(target))  # type: ignore[call-arg]
                    return index, _like(value, like)
                except Exception as error:  # Half-written or damaged: the one before will do.
                    log.warning("Checkpoint %s/%d cannot be read (%s).", self._folder, index, error)
                    shutil.rmtree(self._folder / str(index), ignore_errors=True)
        return None


def _storable(leaf):
    return np.asarray(leaf)


def _like(value: PyTree, like: PyTree | None) -> PyTree:
    if like is None:
        return value
    return jax.tree.map(lambda new, old: new.astype(np.asarray(old).dtype), value, like)


def _write_whole(path: Path, text: str) -> None:
    """Writes a file that is either there whole or not there."""
    temporary = path.with_suffix(f".{uuid.uuid4().hex}.tmp")  # hosts may share the folder
    temporary.write_text(text)
    temporary.replace(path)
