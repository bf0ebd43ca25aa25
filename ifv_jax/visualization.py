"""Feature Visualization: max_v S_k(f(v), t) by Adam, then L-BFGS, a batch at once (Sec. 3.2)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ifv_jax import checks
from ifv_jax.checks.job import check_jitter, check_parameters, check_run
from ifv_jax.checks.samples import check_network
from ifv_jax.engine import fingerprints, fixed_points, hosts, lanes, storage
from ifv_jax.engine.adam import adam
from ifv_jax.engine.climbing import climb
from ifv_jax.engine.lbfgs import lbfgs
from ifv_jax.engine.problem import Group, Problem
from ifv_jax.engine.runs import Run
from ifv_jax.engine.starts import starts
from ifv_jax.objective import Objective
from ifv_jax.status import Status
from ifv_jax.types import Device, PyTree


@dataclass(frozen=True)
class FVConfig:
    """How FV optimizes. The defaults are the paper's for DenseNet and SRNet.

    Attributes:
      adam_steps, lbfgs_steps: steps of either optimizer; an L-BFGS lane may end earlier.
      learning_rate: of Adam.
      restarts: how many further starting points a silent target is given.
      batch_size: targets optimized at once; the last group is padded to it.
      steps_per_call: steps between two looks of the host (progress, checkpoint, Ctrl-C).
      lbfgs_memory: pairs that L-BFGS remembers.
      jitter: pixels by which images are shifted at random, at most, before each Adam step. L-BFGS
        sees them where they are, so leave its steps out if the jitter is to shape the result.
    """

    adam_steps: int = 800
    lbfgs_steps: int = 300
    learning_rate: float = 0.05
    restarts: int = 8
    batch_size: int = 32
    steps_per_call: int = 25
    lbfgs_memory: int = 10
    jitter: int = field(default=0, metadata={fingerprints.NEUTRAL: 0})

    def __post_init__(self):
        for name, least in (
            *((n, 0) for n in ("adam_steps", "lbfgs_steps", "restarts", "jitter")),
            *((n, 1) for n in ("batch_size", "steps_per_call", "lbfgs_memory")),
        ):
            value = checks.check_integer(getattr(self, name), name, least=least)
            object.__setattr__(self, name, value)
        rate = checks.check_real(
            self.learning_rate, "learning_rate", "a positive number", above=0, do="Try 0.05."
        )
        object.__setattr__(self, "learning_rate", rate)


class Realizations(NamedTuple):
    """What FV found; the batch is the targets' batch."""

    v: PyTree  # parameters, (batch, ...)
    response: jax.Array  # (batch, n) r = f(v)
    significance: jax.Array  # (batch,) S_k(r, t)
    status: jax.Array  # (batch,) int8, see Status
    restarts: jax.Array  # (batch,) int32, starting points that had to be given up
    history: jax.Array  # (batch, adam_steps + lbfgs_steps) significance: before each Adam step,
    # after each L-BFGS step


def visualize(
    objective: Objective,
    variables: PyTree,
    targets: jax.Array,
    key: jax.Array,
    *,
    config: FVConfig | None = None,
    start: PyTree | None = None,
    run: Run | str | os.PathLike[str] | None = None,
    progress: bool = False,
    devices: Sequence[Device] | None = None,
) -> Realizations:
    """Finds, for each target, an input that it is maximally significant for.

    Args:
      objective: see `make_objective`. variables: the network's weights.
      targets: (batch, n) unit vectors. key: one PRNG key; sample i starts from fold_in(key, i).
      start: parameters to start from instead, one a target (`parametrization.invert(images)`).
      run: a folder that keeps checkpoints; the same call with the same one resumes.
      progress: show a bar.
      devices: lanes are spread over them; all local ones by default. Under `jax.distributed` each
        host computes its share of the groups, and all of them return everything.
    Returns: `Realizations`. The same key gives the same bits on the same machine; on the CPU on any
      number of devices and hosts.
    Raises: InputError for bad input, and if the network is not finite for every single sample.
    """
    checks.check_kind(objective, Objective, "objective", "Make it with make_objective(response).")
    config = FVConfig() if config is None else config
    checks.check_kind(config, FVConfig, "config", "Pass e.g. FVConfig(adam_steps=800).")
    parametrization = objective.response.parametrization
    check_jitter(config.jitter, parametrization.shape)
    key, progress = checks.check_key(key), checks.check_flag(progress, "progress")
    used = lanes.resolve_devices(devices)
    targets = checks.check_targets(targets, check_network(objective.response, variables))
    count = targets.shape[0]
    if start is not None:
        start = check_parameters(parametrization, start, "start", count=count)
    run = check_run(run)
    pieces = lanes.groups(count, config.batch_size, used, hosts.count())
    problem = Problem(objective, variables, targets, key, start, config, used)
    run = run.part("visualize", problem.identity())
    size = len(pieces[0][0])
    if run.folder is not None:
        fixed_points.check(run, problem.program(), lambda: problem.fixed_points(size))

    total = -(-config.adam_steps // config.steps_per_call) - (
        -config.lbfgs_steps // config.steps_per_call
    )
    read_back = []
    with tqdm(
        total=total * hosts.rounds(len(pieces)), disable=not progress, desc="visualize", unit="call"
    ) as bar:

        def compute(number: int) -> Realizations:
            indices, _ = pieces[number]
            kept = run if hosts.owns(number) else Run(None)
            # Named by contents: another number of devices splits the batch differently.
            name = f"group_{indices[0]:05d}_of_{len(indices)}"
            with storage.lock(kept.folder, name):
                part = kept.read(name, Realizations, like=_like(problem))
                if part is not None:
                    read_back.append(part)
                else:
                    part = _visualize_group(
                        problem.group(indices), kept.part(f"{name}_states"), bar
                    )
                    if kept.write(name, part):
                        kept.forget(f"{name}_states")
            bar.n = total * (number // hosts.count() + 1)
            bar.refresh()
            return part

        parts = hosts.gather(compute, pieces)
    if read_back:
        _check_response(problem, run, read_back[0], size)
    found = jax.tree.map(lambda *leaves: jnp.concatenate([jnp.asarray(x) for x in leaves]), *parts)
    checks.check_some_finite(found.status, "the significance or its gradient")
    return found


def _like(problem: Problem) -> Realizations:
    """The structure of a result: that of v is the parametrization's."""
    leaf: Any = 0
    return Realizations(problem.shapes(), *[leaf] * (len(Realizations._fields) - 1))


def _check_response(problem: Problem, run: Run, kept: Realizations, size: int) -> None:
    """Recomputes r(v) of one sample that was read from the run."""
    finite = np.flatnonzero(np.asarray(kept.status) != Status.NON_FINITE)
    if finite.size:
        one = jax.tree.map(jnp.asarray, lanes.take(kept.v, finite[:1]))
        fixed_points.check_response(run, kept.response[finite[0]], problem.respond(one, size))


def _visualize_group(group: Group, run: Run, bar) -> Realizations:
    """Starts, climbs by each optimizer, looks, reports."""
    config = group.problem.config
    begin = starts(group)
    v, at, history = begin.v, begin.at, []
    finite = jnp.ones(len(group.keys), bool)
    for optimizer in (adam(group, np.asarray(begin.silent | begin.flat)), lbfgs(group)):
        found = climb(
            optimizer, run, v, at, group.problem.devices, config.steps_per_call, bar.update
        )
        history.append(found.history)
        if optimizer.steps:
            v = found.state.v
            at = group.evaluate(v)
            finite = finite & getattr(found.state, "finite", True)
    status = jnp.where(at.significance < 0, Status.NEGATIVE, Status.OK)
    status = jnp.where(begin.flat, Status.FLAT, status)
    status = jnp.where(begin.silent, Status.SILENT, status)
    finite = finite & jnp.isfinite(at.significance) & jnp.isfinite(at.largest)
    status = jnp.where(finite, status, Status.NON_FINITE).astype(jnp.int8)
    return Realizations(
        v, at.response, at.significance, status, begin.restarts, jnp.concatenate(history, axis=1)
    )
