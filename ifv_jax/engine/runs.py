"""Long runs: named stages whose results and intermediate states survive kill -9.

A `Run` is a folder. `run.compute(name, kind, function)` computes a result once and reads it from
then on. `run.iterate(name, state, step, steps)` repeats a step and continues from the newest
undamaged checkpoint. Both are deterministic if the functions are: an interrupted run ends in the
same bits.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ifv_jax.checks import InputError
from ifv_jax.engine import storage
from ifv_jax.engine.fingerprints import fingerprint
from ifv_jax.engine.plain_path import local
from ifv_jax.types import PyTree

T = TypeVar("T")

FORMAT = 2
"""Version of job.json. The fingerprints of version 1 did not distinguish all jobs."""


class Run:
    """Checkpoints of one job in one folder.

    Args:
      folder: a local path, which is created if it does not exist; `~` is the home folder. None
        keeps nothing.
      job: the values that determine the job (configuration, seed, targets, weights, ...), anything
        that `fingerprint` accepts. A folder that contains another job is refused.

    Raises:
      InputError: the folder contains another job, or cannot be used.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, job: PyTree = None):
        if not isinstance(folder, str | os.PathLike | None):
            raise InputError("a path", f"{type(folder).__name__}", 'Pass e.g. Run("runs/first").')
        self.folder = None if folder is None else local(folder).absolute()
        if self.folder is None:
            return
        mark, card = fingerprint(job), self.folder / "job.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not card.exists():
                storage.write_whole(card, json.dumps({"format": FORMAT, "fingerprint": mark}))
            text = card.read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                "a folder that can be written",
                f"{self.folder} ({reason})",
                "Choose another folder, or make room and set its permissions.",
            ) from error
        _check_card(card, text, mark)

    def part(self, name: str, job: PyTree = None) -> "Run":
        """Makes a run in a sub-folder, for a stage that consists of stages.

        Args:
          name: name of the sub-folder.
          job: the values that determine the part. If given, their fingerprint is added to the name,
            so that another job gets another folder.

        Returns:
          The run.

        Raises:
          InputError: the sub-folder contains another job, or cannot be used.
        """
        if self.folder is None:
            return Run(None)
        return Run(self.folder / (name if job is None else f"{name}_{fingerprint(job)}"), job)

    def compute(
        self, name: str, kind: Callable[..., T], function: Callable[[], T], *, like: T | None = None
    ) -> T:
        """Computes a result once, and reads it from then on, also in later processes.

        Args:
          name: name of the stage.
          kind: the NamedTuple type of the result.
          function: computes the result.
          like: a value of the same structure, whose leaves do not matter. It is needed if the
            fields contain more than arrays, dicts, lists, tuples and None.

        Returns:
          The result of `function()`.
        """
        if self.folder is None:
            return function()
        with storage.lock(self.folder, name):
            found = self.read(name, kind, like=like)
            if found is None:
                found = function()
                self.write(name, found)
        return found

    def read(self, name: str, kind: Callable[..., T], *, like: T | None = None) -> T | None:
        """Reads a result that `write` or `compute` kept.

        Args:
          name: name of the stage.
          kind: the NamedTuple type of the result.
          like: a value of the same structure, see `compute`.

        Returns:
          The result, or None if there is none or it is damaged.
        """
        wanted = None if like is None else like._asdict()  # type: ignore[attr-defined]
        found = storage.Stage(self.folder, name).newest(wanted)
        return None if found is None else kind(**found[1])

    def write(self, name: str, value: PyTree) -> bool:
        """Keeps a result.

        Args:
          name: name of the stage.
          value: the result, a NamedTuple.

        Returns:
          True if it was written, False for example on a full disk.
        """
        return storage.Stage(self.folder, name).save(0, value._asdict())

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
        """Applies a step many times and saves the state regularly.

        Args:
          name: name of the stage.
          state: the first state.
          step: state -> next state.
          steps: number of steps.
          every: number of steps between two checkpoints. The last state is saved, too.
          progress: called with the number of steps that were gained.
          finished: state -> whether to stop early.

        Returns:
          The last state.
        """
        stage = storage.Stage(self.folder, name)
        with storage.lock(self.folder, name):
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
        """Deletes the checkpoints of a stage that are no longer needed.

        Args:
          name: name of the stage.
        """
        if self.folder is not None:
            shutil.rmtree(self.folder / name, ignore_errors=True)


def _check_card(card: Path, text: bytes, mark: str) -> None:
    """Raises unless job.json says that its folder contains this very job."""
    folder = card.parent
    try:
        content = json.loads(text)
        version, found = content.get("format", 1), content["fingerprint"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"the fingerprint of a job in {card}",
            "a damaged file",
            "If the folder holds this very job, delete that file; else choose another folder.",
        ) from error
    if version != FORMAT:
        raise InputError(
            f"a folder of format {FORMAT}",
            f"{folder}, of format {version}, written by another version of ifv_jax",
            "Choose another folder, or use it with the version that wrote it.",
        )
    if found != mark:
        raise InputError(
            f"a new folder or one that holds this very job ({mark})",
            f"{folder}, which holds another ({found})",
            "Choose another folder, or delete this one to start again.",
        )
