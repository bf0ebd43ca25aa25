"""L-BFGS on independent lanes, all lanes of a batch at once.

On the CPU a lane is followed on the host and asks for the network, which is compiled already, see
`host_control`; with several devices, one lane of each at a time. Elsewhere the host would have to
wait for every step, and the steps are compiled as a whole, at the price of a dozen more copies of
the network.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax.engine import host_control, lanes, lbfgs_step, programs
from ifv_jax.engine.climbing import Optimizer
from ifv_jax.engine.concurrency import concurrently
from ifv_jax.engine.evaluation import Evaluation, significance
from ifv_jax.engine.lbfgs_step import LbfgsState
from ifv_jax.engine.problem import Group
from ifv_jax.types import PyTree

REMEMBERED = 3
"""Points whose significance and gradient a lane remembers on the host."""


def lbfgs(group: Group) -> Optimizer:
    """Climbs by L-BFGS. A lane ends once its line searches find nothing better."""
    config = group.problem.config

    def start(v: PyTree, at: Evaluation) -> LbfgsState:
        return _start(config.lbfgs_memory, v, at)

    def advance(state: LbfgsState, steps: int):
        if lanes.alone(group.problem.devices):
            return _followed(group, state, steps)
        state, values = _compiled(
            group.problem.objective,
            config.steps_per_call,
            config.lbfgs_memory,
            group.problem.devices,
            group.problem.variables,
            group.targets,
            jnp.asarray(steps),
            state,
        )
        return state, np.asarray(values)[:, :steps]

    def alive(state: LbfgsState) -> bool:
        return bool(np.any(np.asarray(state.active)))

    return Optimizer("lbfgs", config.lbfgs_steps, start, advance, alive)


@partial(jax.jit, static_argnames=("memory",))
def _start(memory: int, v, at: Evaluation) -> LbfgsState:
    start = partial(lbfgs_step.start, memory=memory)
    return jax.vmap(start)(v, at.significance, at.gradient)


# --- followed on the host ------------------------------------------------------------------------


def _followed(group: Group, state: LbfgsState, steps: int):
    """`steps` steps of all lanes: (state, significances (lanes, steps))."""
    devices = group.problem.devices
    host = jax.tree.map(np.asarray, state)
    count = len(host.active)
    each = count // len(devices)

    def follow(turn: int) -> list[Any]:
        here = [device * each + turn for device in range(len(devices))]  # one lane a device
        walks = [_walk(group, lanes.take(host, lane), steps) for lane in here]
        return _together(group, here, walks, jax.tree.structure(state.v))

    turns = concurrently(follow, range(each), devices)
    done = [turns[lane % each][lane // each] for lane in range(count)]
    states = [jax.tree.map(np.asarray, one) for one, _ in done]
    state = lanes.place(jax.tree.map(lambda *a: np.stack(a), *states), devices)
    return state, np.stack([values for _, values in done])


def _walk(group: Group, state: LbfgsState, steps: int):
    """Steps of one lane: yields the points at which it wants to know S and its gradient."""
    step = _plan(group.problem.config.lbfgs_memory, *programs.kind(state))
    state = jax.device_put(state, group.problem.devices[0])
    values = np.full(steps, lbfgs_step.significance(state), np.float32)
    for index in range(steps):
        if not bool(state.active):
            break
        state = yield from step(state)
        values[index:] = lbfgs_step.significance(state)
    return state, values


def _together(group: Group, here: list[int], walks: list[Any], structure: Any) -> list[Any]:
    """Follows one lane of each device, and answers all of them by one call of the network."""
    problem = group.problem
    targets = lanes.place(lanes.take(group.targets, np.asarray(here)), problem.devices)
    lane = [_Lane(walk) for walk in walks]
    while asking := [one for one in lane if one.result is None]:
        points = [(asking[0] if one.result is not None else one).point for one in lane]
        leaves = [np.stack(leaf) for leaf in zip(*points, strict=True)]
        v = lanes.place(jax.tree.unflatten(structure, leaves), problem.devices)
        s, gradient = significance(problem.objective, problem.network, targets, v)
        s, host = np.asarray(s), _on_host(gradient)
        for i, one in enumerate(lane):
            if one.result is None:
                # The gradient is not needed where the line search looks at values alone.
                one.answer([s[i], *(partial(_leaf, host, j, i) for j in range(len(leaves)))])
    return [one.result for one in lane]


def _leaf(host: Callable[[], list[np.ndarray]], number: int, lane: int) -> np.ndarray:
    return host()[number][lane]


def _on_host(gradient: Callable[[], PyTree]) -> Callable[[], list[np.ndarray]]:
    return cache(lambda: [np.asarray(a) for a in jax.tree.leaves(gradient())])


class _Lane:
    """A lane that is followed until it asks for a point that it has not asked for lately.

    jaxopt begins each step with the point at which its last one ended.
    """

    def __init__(self, walk: Any):
        self.walk, self.result, self.point = walk, None, None
        self._known: list[tuple[Any, Any]] = []
        self._go_on(None)

    def answer(self, found: Any) -> None:
        """Goes on from what was found at `point`."""
        self._known = [*self._known[1 - REMEMBERED :], (self.point, found)]
        self._go_on(found)

    def _go_on(self, found: Any) -> None:
        try:
            while True:
                self.point = [np.asarray(a) for a in self.walk.send(found)]
                found = next((f for point, f in self._known if _same(point, self.point)), None)
                if found is None:
                    return
        except StopIteration as end:
            self.result = end.value


def _same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@cache
def _plan(memory: int, structure: Any, shapes: tuple[Any, ...]):
    """One step, in which S and its gradient are asked for; for all lanes of these shapes."""
    leaves = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
    state = jax.tree.unflatten(structure, leaves)

    @host_control.marked
    def evaluate(v):
        return jnp.zeros_like(state.scale), v

    return host_control.plan(lambda state: lbfgs_step.step(evaluate, state, memory), state)


# --- compiled as a whole -------------------------------------------------------------------------


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _compiled(objective, steps, memory, devices, variables, targets, left, state):
    """Up to min(steps, left) steps of all lanes: (state, significance after each)."""

    def call(shared, targets, state):
        variables, left = shared
        one = partial(_one, objective, steps, memory, variables, left)
        return lanes.each(one)(targets, state)

    return lanes.on_each_device(call, devices)((variables, left), targets, state)


def _one(objective, steps, memory, variables, left, t, state: LbfgsState):
    whole = jax.jit(objective.value_and_grad)  # jaxopt calls it in many places: traced once

    def evaluate(v):
        s, gradient = whole(variables, jax.tree.map(lambda a: a[None], v), t[None])
        return s[0], lanes.take(gradient, 0)

    def wanted(carry):
        index, state, _ = carry
        return (index < jnp.minimum(steps, left)) & state.active

    def further(carry):
        index, state, values = carry
        state = lbfgs_step.step(evaluate, state, memory)
        return index + 1, state, values.at[index].set(lbfgs_step.significance(state))

    values = jnp.full((steps,), lbfgs_step.significance(state))
    done, state, values = jax.lax.while_loop(wanted, further, (0, state, values))
    last = lbfgs_step.significance(state)
    return state, jnp.where(jnp.arange(steps) < done, values, last)
