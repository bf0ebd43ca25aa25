"""Lanes: a batch of independent problems, padded to the devices and spread over them."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ifv_jax.errors import InputError
from ifv_jax.types import Device, PyTree

Devices = tuple[Device, ...]


def resolve_devices(devices: Sequence[Device] | None) -> Devices:
    """The devices to spread lanes over: those given, or all local ones of the default backend."""
    found = tuple(jax.local_devices() if devices is None else devices)
    if not found:
        raise InputError("at least one device", "none", "Leave `devices` out to use all.")
    return found


def spread(function: Callable, devices: Devices) -> Callable:
    """function(variables, *lanes) -> lanes, run on each device for its share of the lanes.

    Every array in `lanes` has the lane axis first, divisible by the number of devices; `variables`
    are replicated. The lanes do not communicate, so the result is that of a single device.
    """
    if len(devices) == 1:
        return function
    mesh = _mesh(devices)
    replicated, split = PartitionSpec(), PartitionSpec("lanes")

    def run(variables, *lanes):
        in_specs = (replicated, *(split for _ in lanes))
        mapped = jax.shard_map(
            function, mesh=mesh, in_specs=in_specs, out_specs=split, check_vma=False
        )
        return mapped(variables, *lanes)

    return run


def place(tree: PyTree, devices: Devices) -> PyTree:
    """Every leaf, lane axis first, laid out as `spread` wants it.

    A program is compiled anew for every layout of its arguments: what comes from the host, or from
    a checkpoint, must look like what an earlier call returned.
    """
    if len(devices) == 1:
        return jax.device_put(tree, devices[0])
    return jax.device_put(tree, NamedSharding(_mesh(devices), PartitionSpec("lanes")))


def _mesh(devices: Devices) -> jax.sharding.Mesh:
    return jax.make_mesh((len(devices),), ("lanes",), axis_types=(AxisType.Auto,), devices=devices)


def take(tree: PyTree, indices) -> PyTree:
    """Lanes `indices` of every leaf."""
    return jax.tree.map(lambda leaf: leaf[indices], tree)


def groups(count: int, size: int, devices: Devices) -> list[tuple[np.ndarray, int]]:
    """Splits `count` lanes into groups of one shape: [(lane indices (padded size,), real ones)].

    The size is rounded up to a multiple of the devices; the last group is padded with its last
    lane, so that everything compiles once.
    """
    size = -(-min(size, count) // len(devices)) * len(devices)
    out = []
    for start in range(0, count, size):
        real = min(size, count - start)
        out.append((np.minimum(np.arange(start, start + size), count - 1), real))
    return out


def where(mask: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    """Lane by lane: `yes` where mask (lanes,) holds, else `no`."""

    def pick(a, b):
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim)), a, b)

    return jax.tree.map(pick, yes, no)


def flatten(tree: PyTree) -> jax.Array:
    """All leaves of a batched pytree side by side: (lanes, m)."""
    leaves = jax.tree.leaves(tree)
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)


def each(function: Callable) -> Callable:
    """`function` of one lane, for all: vmap on accelerators, one after the other on the CPU.

    Under vmap every `cond` of the line search evaluates all its branches, and all lanes wait for
    the slowest: three evaluations or more a step. A CPU gains nothing from wide batches, so there
    each lane runs alone and pays for what it does.
    """
    if jax.default_backend() == "cpu":
        return lambda *args: jax.lax.map(lambda one: function(*one), args)
    return jax.vmap(function)
