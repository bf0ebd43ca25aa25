"""The network as two compiled programs that serve everything that is asked of it.

`forward` computes the response and keeps what its gradient needs; `pull_back` turns a direction of
feature space into the gradient along it. Feature Visualization, rows of J, gradient differences
around an input and re-optimization all call these two, so that each is compiled once for a
response, a shape and a number of devices.

On the CPU one lane of each device is computed at a time. So the programs do not depend on the size
of a batch, a lane has the same bits in any batch, and no more than one lane's residuals are held.
Elsewhere all lanes of a device are computed together.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ifv_jax.engine import compiling, lanes
from ifv_jax.jitter import shifted
from ifv_jax.objective import Response
from ifv_jax.types import PyTree


class Shift(NamedTuple):
    """What shifts the images of lanes, see `ifv_jax.jitter`."""

    key_data: jax.Array  # (lanes, ...) of each lane's key
    taken: jax.Array  # (lanes,) int32, steps that the lane has taken


class Pass(NamedTuple):
    """A forward pass through the network."""

    response: jax.Array  # (lanes, n)
    pull: PyTree  # residuals; each leaf has a leading axis over the devices


def forward(
    response: Response,
    devices: lanes.Devices,
    variables: PyTree,
    v: PyTree,
    shift: Shift | None = None,
    jitter: int = 0,
) -> Pass:
    """Computes r = f(v) of these lanes, and keeps the residuals.

    Args:
      response: f.
      devices: the lanes are spread over them.
      variables: the network's weights.
      v: parameters, (lanes, ...); on the CPU one lane a device.
      shift: how far the images are shifted, if they are.
      jitter: by how many pixels at most.
    """
    return Pass(*_forward(response, devices, jitter, variables, v, shift))


def pull_back(devices: lanes.Devices, pull: PyTree, cotangents: jax.Array) -> jax.Array:
    """Computes J^T c of each lane.

    Args:
      devices: those of the forward pass.
      pull: its residuals.
      cotangents: c, (lanes, n), or (chunk, lanes, n) for `chunk` of them at once.

    Returns: (lanes, m), or (lanes, chunk, m); the leaves of v side by side.
    """
    return _pull_back(devices, pull, cotangents)


@partial(compiling.jitted, static_argnums=(0, 1, 2))
def _forward(response, devices, jitter, variables, v, shift):
    def call(variables, v, shift):
        view = None
        if jitter:
            view = shifted(jitter, jax.random.wrap_key_data(shift.key_data), shift.taken)
        r, pull = jax.vjp(lambda v: response(variables, v, view), v)
        return r, jax.tree.map(lambda a: a[None], pull)

    return lanes.on_each_device(call, devices)(variables, v, shift)


@partial(compiling.jitted, static_argnums=0)
def _pull_back(devices, pull, cotangents):
    several = cotangents.ndim == 3

    def call(_, pull, cotangents):
        pull = jax.tree.map(lambda a: a[0], pull)

        def row(cotangent):
            return lanes.flatten(pull(cotangent)[0])

        return jax.vmap(row, in_axes=1, out_axes=1)(cotangents) if several else row(cotangents)

    if several:  # lanes first, as everything that is spread over devices
        cotangents = cotangents.swapaxes(0, 1)
    return lanes.on_each_device(call, devices)(None, pull, cotangents)


# --- some lanes of all ---------------------------------------------------------------------------


def turns(devices: lanes.Devices, count: int) -> range:
    """Returns the first lane, on each device, of those that are computed together."""
    each = count // len(devices)
    return range(0, each, 1 if lanes.alone(devices) else each)


def some(devices: lanes.Devices, first: int, tree: PyTree) -> PyTree:
    """Returns, of each device, those lanes of every leaf that are computed together."""
    width = 1 if lanes.alone(devices) else _count(tree) // len(devices)
    return _some(devices, width, first, tree)


@partial(jax.jit, static_argnums=(0, 1))
def _some(devices, width, first, tree):
    def call(first, tree):
        cut = partial(jax.lax.dynamic_slice_in_dim, start_index=first, slice_size=width)
        return jax.tree.map(cut, tree)

    return lanes.on_each_device(call, devices)(first, tree)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def put(devices: lanes.Devices, first: int, whole: PyTree, part: PyTree) -> PyTree:
    """Returns `whole` with these lanes of each device, from `first` on, replaced."""

    def call(first, whole, part):
        write = partial(jax.lax.dynamic_update_slice_in_dim, start_index=first, axis=0)
        return jax.tree.map(write, whole, part)

    return lanes.on_each_device(call, devices)(first, whole, part)


def empty(devices: lanes.Devices, count: int, part: PyTree) -> PyTree:
    """Returns zeros for `count` lanes, of which `part` are some."""
    return jax.tree.map(
        lambda a: jnp.zeros((count, *a.shape[1:]), a.dtype, device=lanes.layout(devices)), part
    )


def _count(tree: PyTree) -> int:
    return jax.tree.leaves(tree)[0].shape[0]
