"""Climbing a significance with an optimizer, in pieces that survive being killed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ifv_jax.engine import lanes
from ifv_jax.engine.evaluation import Evaluation
from ifv_jax.engine.runs import Run
from ifv_jax.types import PyTree


class Optimizer(NamedTuple):
    """A way to climb. The arrays of its state have the lanes first, and `state.v` is the point.

    Attributes:
      name: of its checkpoints.
      steps: how many it takes.
      start: (v, what was found there) -> state.
      advance: (state, steps) -> (state, significances (lanes, steps) on the host).
      alive: whether any lane of a state can still move.
    """

    name: str
    steps: int
    start: Callable[[PyTree, Evaluation], Any]
    advance: Callable[[Any, int], tuple[Any, np.ndarray]]
    alive: Callable[[Any], bool]


class Climb(NamedTuple):
    """An optimizer on its way: what is checkpointed."""

    state: Any
    step: Any  # () int32, on the host
    history: Any  # (lanes, steps) on the host; significance, what is not reached repeats the last


def climb(
    optimizer: Optimizer,
    run: Run,
    v: PyTree,
    at: Evaluation,
    devices: lanes.Devices,
    steps_per_call: int,
    progress: Callable[[int], object],
) -> Climb:
    """Takes the optimizer's steps, `steps_per_call` at a time.

    Args:
      optimizer: how to climb.
      run: keeps the checkpoints.
      v: where to start, (lanes, ...).
      at: the evaluation there.
      devices: the lanes are spread over them.
      steps_per_call: steps between two looks of the host.
      progress: is told how many calls were gained.
    """
    steps = optimizer.steps

    def step(climb: Climb) -> Climb:
        done = int(climb.step)
        now = min(steps_per_call, steps - done)
        state, values = optimizer.advance(lanes.place(climb.state, devices), now)
        history = np.array(climb.history)
        history[:, done:] = values[:, -1:]
        history[:, done : done + now] = values
        return Climb(state, np.int32(done + now), history)

    before = np.asarray(at.significance, np.float32)
    begin = Climb(optimizer.start(v, at), np.int32(0), np.repeat(before[:, None], steps, axis=1))
    return run.iterate(
        optimizer.name,
        begin,
        step,
        -(-steps // steps_per_call),
        every=4,
        progress=progress,
        finished=lambda climb: not optimizer.alive(climb.state),
    )
