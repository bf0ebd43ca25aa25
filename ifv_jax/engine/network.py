"""The network as compiled programs that serve everything that is asked of it.

`Network.forward` computes the response and keeps what its gradient needs; `Pass.pull_back` turns a
direction of feature space into the gradient along it. Feature Visualization, rows of J, gradient
differences around an input and re-optimization all call these two, so that each is compiled once
for a response, a shape and a number of devices. What the weights alone determine is computed before
them, once for a job.

On the CPU one lane of each device is computed at a time. So the programs do not depend on the size
of a batch, a lane has the same bits in any batch, and no more than one lane's residuals are held.
Elsewhere all lanes of a device are computed together.
"""

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ifv_jax.engine import compiling, lanes, programs, splitting
from ifv_jax.engine.concurrency import concurrently
from ifv_jax.jitter import shifted
from ifv_jax.objective import Response
from ifv_jax.types import PyTree


class Shift(NamedTuple):
    """What shifts the images of lanes, see `ifv_jax.jitter`."""

    key_data: jax.Array  # (lanes, ...) of each lane's key
    taken: jax.Array  # (lanes,) int32, steps that the lane has taken


class Network:
    """A response with its weights, on devices.

    Args:
      response: f.
      devices: the lanes are spread over them.
      variables: the network's weights.
    """

    def __init__(self, response: Response, devices: lanes.Devices, variables: PyTree):
        self.response, self.devices, self.variables = response, devices, variables
        self._weights = jax.tree.leaves(variables)
        self._kind = programs.kind(variables)
        self._prepared: dict[Any, Any] = {}

    def forward(self, v: PyTree, shift: Shift | None = None, jitter: int = 0) -> "Pass":
        """Computes r = f(v) of these lanes, and keeps the residuals.

        Args:
          v: parameters, (lanes, ...); on the CPU one lane a device.
          shift: how far the images are shifted, if they are.
          jitter: by how many pixels at most.
        """
        others = (v, shift)
        key = (self._kind, programs.kind(others), self.devices, jitter, *_settings())
        if key not in self._prepared:
            made = self._programs(key, others)
            prepared = lanes.replicate(made.prepare(self._weights), self.devices)
            self._prepared[key] = made, prepared
        made, prepared = self._prepared[key]
        r, residuals = made.forward(prepared, jax.tree.leaves(others))
        return Pass(r, made, prepared, residuals)

    def _programs(self, key: Any, others: Any) -> "Programs":
        """The programs for these shapes, whose key this is; made where they are not known yet."""
        made = _made.setdefault(self.response, {})
        if key not in made:
            jitter = key[3]
            made[key] = _make(self.response, self.devices, jitter, self.variables, *others)
        return made[key]


class Pass(NamedTuple):
    """A forward pass through the network."""

    response: jax.Array  # (lanes, n)
    programs: "Programs"
    prepared: list[jax.Array]
    residuals: list[jax.Array]

    def pull_back(self, cotangents: jax.Array) -> jax.Array:
        """Computes J^T c of each lane.

        Args:
          cotangents: c, (lanes, n), or (lanes, chunk, n) for `chunk` of them at once.

        Returns: (lanes, m), or (lanes, chunk, m); the leaves of v side by side.
        """
        return self.programs.pull_back(self.prepared, self.residuals, cotangents)


class Programs(NamedTuple):
    """What is compiled for a response, the shapes of its arguments and its devices."""

    prepare: Callable[..., Any]
    forward: Callable[..., Any]
    pull_back: Callable[..., Any]


_made: "weakref.WeakKeyDictionary[Response, dict]" = weakref.WeakKeyDictionary()


def compiled(response: Response) -> int:
    """Returns how many programs that hold the network were compiled for a response."""
    made = _made.get(response, {}).values()
    return sum(one.forward.cache_size() + one.pull_back.cache_size() for one in made)


def _settings() -> tuple[Any, ...]:
    """JAX's settings that change what a function is traced to."""
    config: Any = jax.config
    return config.jax_enable_x64, config.jax_default_matmul_precision


def _make(response: Response, devices: lanes.Devices, jitter: int, variables, v, shift) -> Programs:
    def whole(variables, others):
        v, shift = others
        view = None
        if jitter:
            view = shifted(jitter, jax.random.wrap_key_data(shift.key_data), shift.taken)
        return jax.vjp(lambda v: response(variables, v, view), v)

    here = jax.tree.map(lambda a: _share(a, len(devices)), (v, shift))
    closed, (_, pull) = jax.make_jaxpr(whole, return_shape=True)(_shapes(variables), here)
    split = splitting.split(closed, len(jax.tree.leaves(variables)))
    residuals = jax.tree.structure(pull)
    response_at, *places = split.place  # the response, then the residuals

    def forward(prepared, *others):
        found = split.finish(prepared, others)
        r = splitting.pick(response_at, prepared, found)
        # The residuals get an axis over the devices; the response has one, the lanes.
        return r, [None if a is r else a[None] for a in found]

    def pull_back(shared, cotangents, *found):
        found = [None if a is None else a[0] for a in found]
        pull = jax.tree.unflatten(residuals, [splitting.pick(at, shared, found) for at in places])
        row = lambda cotangent: lanes.flatten(pull(cotangent)[0])  # noqa: E731
        several = cotangents.ndim == 3
        return jax.vmap(row, in_axes=1, out_axes=1)(cotangents) if several else row(cotangents)

    on_devices = partial(lanes.on_each_device, devices=devices)
    return Programs(
        jax.jit(split.prepare),
        compiling.Jitted(lambda prepared, others: on_devices(forward)(prepared, *others)),
        compiling.Jitted(
            lambda prepared, found, cotangents: on_devices(pull_back)(prepared, cotangents, *found)
        ),
    )


def _share(a: Any, devices: int) -> jax.ShapeDtypeStruct:
    """The shape of what each device has of the lanes."""
    return jax.ShapeDtypeStruct((a.shape[0] // devices, *a.shape[1:]), a.dtype)


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)), tree)


# --- some lanes of all ---------------------------------------------------------------------------


def turns(devices: lanes.Devices, count: int) -> range:
    """Returns the first lane, on each device, of those that are computed together."""
    each = count // len(devices)
    return range(0, each, 1 if lanes.alone(devices) else each)


def some(devices: lanes.Devices, first: int, tree: PyTree) -> PyTree:
    """Returns, of each device, those lanes of every leaf that are computed together."""
    count = jax.tree.leaves(tree)[0].shape[0]
    width = 1 if lanes.alone(devices) else count // len(devices)
    return _some(devices, width, first, tree)


@partial(jax.jit, static_argnums=(0, 1))
def _some(devices, width, first, tree):
    def call(first, tree):
        cut = partial(jax.lax.dynamic_slice_in_dim, start_index=first, slice_size=width)
        return jax.tree.map(cut, tree)

    return lanes.on_each_device(call, devices)(first, tree)


@partial(jax.jit, static_argnums=0)
def join(devices: lanes.Devices, parts: Sequence[PyTree]) -> PyTree:
    """Returns all lanes from what `some` gave, in the order of `turns`."""

    def call(_, *parts):
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)

    return lanes.on_each_device(call, devices)(None, *parts)


def in_turns(
    devices: lanes.Devices,
    function: Callable[[PyTree], PyTree],
    tree: PyTree,
    *,
    traced: bool = False,
) -> PyTree:
    """Returns function(tree), computed for as many lanes at a time as belong together.

    Args:
      devices: the lanes are spread over them.
      function: of some lanes.
      tree: its argument, all lanes.
      traced: whether JAX is tracing.
    """
    starts = turns(devices, jax.tree.leaves(tree)[0].shape[0])
    if len(starts) == 1:
        return function(tree)
    one = lambda first: function(some(devices, first, tree))  # noqa: E731
    return join(devices, concurrently(one, starts, devices, traced=traced))
