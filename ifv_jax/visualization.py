"""Feature Visualization: max_v S_k(f(v), t) by Adam, then L-BFGS, a batch at once (Sec. 3.2)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ifv_jax import checks
from ifv_jax.checks.job import check_jitter, check_parameters, check_run
from ifv_jax.checks.samples import check_network
from ifv_jax.engine import adam, fingerprints, fixed_points, hosts, lanes, lbfgs, storage
from ifv_jax.engine.problem import Problem
from ifv_jax.engine.runs import Run
from ifv_jax.jitter import shifted
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
    if run.folder is not None:
        look = partial(_look, objective, used)
        size = len(pieces[0][0])
        fixed_points.check(run, problem.program(), lambda: problem.fixed_points(look, size))

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
                    part = _visualize_group(problem, indices, kept.part(f"{name}_states"), bar)
                    if kept.write(name, part):
                        kept.forget(f"{name}_states")
            bar.n = total * (number // hosts.count() + 1)
            bar.refresh()
            return part

        parts = hosts.gather(compute, pieces)
    if read_back:
        _check_response(problem, run, read_back[0])
    found = jax.tree.map(lambda *leaves: jnp.concatenate([jnp.asarray(x) for x in leaves]), *parts)
    checks.check_some_finite(found.status, "the significance or its gradient")
    return found


def _like(problem: Problem) -> Realizations:
    """The structure of a result: that of v is the parametrization's."""
    leaf: Any = 0
    return Realizations(problem.shapes(), *[leaf] * (len(Realizations._fields) - 1))


def _check_response(problem: Problem, run: Run, kept: Realizations) -> None:
    """Recomputes r(v) of one sample that was read from the run."""
    finite = np.flatnonzero(np.asarray(kept.status) != Status.NON_FINITE)
    if finite.size:
        one = jax.tree.map(jnp.asarray, lanes.take(kept.v, finite[:1]))
        found = problem.objective.response(problem.variables, one)
        fixed_points.check_response(run, kept.response[finite[0]], found[0])


def _visualize_group(problem: Problem, indices, run: Run, bar) -> Realizations:
    objective, variables, config, devices = (
        problem.objective, problem.variables, problem.config, problem.devices,
    )  # fmt: skip
    targets = lanes.place(problem.targets[indices], devices)
    keys = jax.vmap(partial(jax.random.fold_in, problem.key))(jnp.asarray(indices))
    start = None if problem.start is None else lanes.take(problem.start, indices)
    begin = _starts(objective, variables, targets, keys, start, config.restarts, devices)
    stuck = np.asarray(begin.silent | begin.flat)
    adam_call = partial(
        _adam_call, objective, config.learning_rate, config.steps_per_call, config.jitter, devices,
        lanes.place(jax.random.key_data(keys), devices) if config.jitter else None,
    )  # fmt: skip
    rough = _climb(
        run, "adam", adam_call, adam.start(config.learning_rate, begin.v), config.adam_steps,
        config.steps_per_call, variables, targets, devices, bar, begin.significance,
        lambda state: np.any(np.asarray(state.finite) & ~stuck),
    )  # fmt: skip
    v = rough.state.v
    look = _look(objective, devices, variables, targets, v)
    lbfgs_call = partial(
        _lbfgs_call, objective, config.steps_per_call, config.lbfgs_memory, devices
    )
    fine = _climb(
        run, "lbfgs", lbfgs_call, _lbfgs_start(config.lbfgs_memory, v, look), config.lbfgs_steps,
        config.steps_per_call, variables, targets, devices, bar, look.significance,
        lambda state: np.any(np.asarray(state.active)),
    )  # fmt: skip
    if config.lbfgs_steps:
        v = fine.state.v
        look = _look(objective, devices, variables, targets, v)
    status = jnp.where(look.significance < 0, Status.NEGATIVE, Status.OK)
    status = jnp.where(begin.flat, Status.FLAT, status)
    status = jnp.where(begin.silent, Status.SILENT, status)
    status = jnp.where(look.finite & rough.state.finite, status, Status.NON_FINITE)
    history = jnp.concatenate([rough.history, fine.history], axis=1)
    return Realizations(
        v, look.response, look.significance, status.astype(jnp.int8), begin.restarts, history
    )


class _Climb(NamedTuple):
    """An optimizer on its way: what is checkpointed."""

    state: Any  # AdamState or LbfgsState, lanes first
    step: Any  # () int32, on the host
    history: Any  # (lanes, steps) on the host; significance, what is not reached repeats the last


def _climb(
    run, name, call, state, steps, steps_per_call, variables, targets, devices, bar, before, wanted
) -> _Climb:
    """`steps` steps by `call`, some at a time, for as long as `wanted(state)` lanes are left.

    The history is kept out of the compiled program, which so serves any number of steps.
    """

    def step(climb: _Climb) -> _Climb:
        done = int(climb.step)
        state = lanes.place(climb.state, devices)
        state, values = call(variables, targets, jnp.asarray(steps - done), state)
        history = np.array(climb.history)
        history[:, done:] = np.asarray(values)[:, : steps - done][:, -1:]
        history[:, done : done + steps_per_call] = np.asarray(values)[:, : steps - done]
        return _Climb(state, np.int32(min(done + steps_per_call, steps)), history)

    history = np.repeat(np.asarray(before, np.float32)[:, None], steps, axis=1)
    begin = _Climb(state, np.int32(0), history)
    return run.iterate(
        name, begin, step, -(-steps // steps_per_call), every=4, progress=bar.update,
        finished=lambda climb: not wanted(climb.state),
    )  # fmt: skip


# --- starting points -----------------------------------------------------------------------------


class _Starts(NamedTuple):
    v: PyTree
    significance: jax.Array  # (lanes,)
    silent: jax.Array  # (lanes,) bool, still so after all restarts
    flat: jax.Array  # (lanes,) bool, the same
    restarts: jax.Array  # (lanes,) int32


def _starts(objective, variables, targets, keys, start, restarts, devices) -> _Starts:
    """Starting points from which the targets can be climbed, as far as such can be found.

    Where the gradient is exactly zero, no optimizer would move: a target is silent there if its
    significance is zero, too, and else the response is flat. Each restart draws a new point, three
    times as far out as the last (up to a standard deviation of 2). A flat start that the user gave
    may be an optimum and is kept.
    """

    def stuck(look: _Look) -> tuple[jax.Array, jax.Array]:
        silent = look.still & (look.significance == 0)
        return silent, look.still & ~silent & look.finite & (start is None)

    v = lanes.place(_fresh(objective, keys, 0) if start is None else start, devices)
    tried = jnp.zeros(len(keys), jnp.int32)
    look = _look(objective, devices, variables, targets, v)
    silent, flat = stuck(look)
    for attempt in range(1, restarts + 1):
        again = silent | flat
        if not np.any(np.asarray(again)):
            break
        v = lanes.place(lanes.where(again, _fresh(objective, keys, attempt), v), devices)
        tried = tried + again
        look = _look(objective, devices, variables, targets, v)
        silent, flat = stuck(look)
    return _Starts(v, look.significance, silent, flat, tried)


@partial(jax.jit, static_argnames=("objective", "attempt"))
def _fresh(objective: Objective, keys, attempt: int):
    factor = min(3.0**attempt, 200.0)
    init = objective.response.parametrization.init
    one = lambda key: lanes.take(init(jax.random.fold_in(key, attempt), 1), 0)  # noqa: E731
    return jax.tree.map(lambda a: factor * a, jax.vmap(one)(keys))


class _Look(NamedTuple):
    """What one evaluation says of all lanes."""

    response: jax.Array  # (lanes, n)
    significance: jax.Array  # (lanes,)
    gradient: PyTree  # dS/dv
    still: jax.Array  # (lanes,) bool, the gradient is exactly zero
    finite: jax.Array  # (lanes,) bool


@partial(jax.jit, static_argnames=("objective", "devices"))
def _look(objective: Objective, devices, variables, targets, v) -> _Look:
    def call(variables, targets, v):
        r, s, gradient = objective.look(variables, v, targets)
        largest = jnp.abs(lanes.flatten(gradient)).max(axis=1)
        finite = jnp.isfinite(s) & jnp.isfinite(largest)
        return _Look(r, s, gradient, largest == 0, finite)

    return lanes.spread(call, devices)(variables, targets, v)


# --- what is compiled ----------------------------------------------------------------------------


@partial(jax.jit, static_argnames=("objective", "learning_rate", "steps", "jitter", "devices"))
def _adam_call(
    objective, learning_rate, steps, jitter, devices, key_data, variables, targets, left, state
):
    def call(replicated, targets, state, key_data):
        variables, left = replicated

        def evaluate(variables, v, targets, taken):
            view = None
            if jitter:
                view = shifted(jitter, jax.random.wrap_key_data(key_data), taken)
            return objective.value_and_grad(variables, v, targets, view)

        return adam.advance(evaluate, variables, targets, state, left, steps, learning_rate)

    return lanes.spread(call, devices)((variables, left), targets, state, key_data)


@partial(jax.jit, static_argnames=("memory",))
def _lbfgs_start(memory: int, v, look: _Look) -> lbfgs.LbfgsState:
    return jax.vmap(partial(lbfgs.start, memory=memory))(v, look.significance, look.gradient)


@partial(jax.jit, static_argnames=("objective", "steps", "memory", "devices"))
def _lbfgs_call(objective, steps, memory, devices, variables, targets, left, state):
    def call(replicated, targets, state):
        variables, left = replicated
        evaluate = objective.value_and_grad
        return lanes.each(
            lambda t, s: lbfgs.advance(evaluate, variables, t, s, left, steps, memory)
        )(targets, state)

    return lanes.spread(call, devices)((variables, left), targets, state)
