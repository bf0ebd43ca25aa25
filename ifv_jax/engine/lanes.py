"""Lanes: a batch of independent problems, padded to the devices and spread over them."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ifv_jax.checks.job import check_devices
from ifv_jax.types import Device, PyTree

Devices = tuple[Device, ...]


def resolve_devices(devices: Sequence[Device] | Device | None) -> Devices:
    """The devices to spread lanes over: those given, or all local ones of the default backend."""
    return check_devices(devices)


def on_each_device(function: Callable, devices: Devices) -> Callable:
    """function(shared, *lanes) -> lanes, run on each device for its share of the lanes at once.

    Every array in `lanes` has the lane axis first, divisible by the number of devices; what is
    `shared` is replicated.
    """
    if len(devices) == 1:
        return function
    mesh = _mesh(devices)
    replicated, split = PartitionSpec(), PartitionSpec("lanes")

    def run(shared, *lanes):
        in_specs = (replicated, *(split for _ in lanes))
        mapped = jax.shard_map(
            function, mesh=mesh, in_specs=in_specs, out_specs=split, check_vma=False
        )
        return mapped(shared, *lanes)

    return run


def alone(devices: Devices) -> bool:
    """Whether the lanes of a device are computed one after the other: so on the CPU.

    It gains nothing from wide batches, and a lane computed alone has the same bits on any number of
    devices.
    """
    return devices[0].platform == "cpu"


def place(tree: PyTree, devices: Devices) -> PyTree:
    """Every leaf, lane axis first, laid out as `on_each_device` wants it.

    A program is compiled anew for every layout of its arguments: what comes from the host, or from
    a checkpoint, must look like what an earlier call returned.
    """
    return jax.device_put(tree, layout(devices))


def replicate(tree: PyTree, devices: Devices) -> PyTree:
    """Every array that lies on one device, on all of these; what is laid out by the user stays."""
    there = devices[0] if len(devices) == 1 else NamedSharding(_mesh(devices), PartitionSpec())

    def put(a):
        alone = isinstance(a, jax.Array) and not isinstance(a, Tracer) and len(a.devices()) == 1
        return jax.device_put(a, there) if alone else a

    return jax.tree.map(put, tree)


def layout(devices: Devices) -> Device | NamedSharding:
    """Of an array whose first axis are lanes."""
    if len(devices) == 1:
        return devices[0]
    return NamedSharding(_mesh(devices), PartitionSpec("lanes"))


def _mesh(devices: Devices) -> jax.sharding.Mesh:
    return jax.make_mesh((len(devices),), ("lanes",), axis_types=(AxisType.Auto,), devices=devices)


def take(tree: PyTree, indices) -> PyTree:
    """Lanes `indices` of every leaf."""
    return jax.tree.map(lambda leaf: leaf[indices], tree)


def groups(count: int, size: int, devices: Devices, hosts: int = 1) -> list[tuple[np.ndarray, int]]:
    """Splits `count` lanes into groups of one shape: [(lane indices (padded size,), real ones)].

    No more than a host's share of the lanes is in one. The size is rounded up to a multiple of the
    devices; the last group is padded with its last lane, so that everything compiles once.
    """
    size = -(-min(size, -(-count // hosts)) // len(devices)) * len(devices)
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


def unflatten(flat: jax.Array, tree: PyTree) -> PyTree:
    """Inverse of `flatten`: a pytree like `tree`, in its dtypes."""
    leaves, structure = jax.tree.flatten(tree)
    ends = np.cumsum([leaf[0].size for leaf in leaves])
    parts = jnp.split(flat, ends[:-1], axis=1)
    like = zip(parts, leaves, strict=True)
    return jax.tree.unflatten(structure, [a.reshape(b.shape).astype(b.dtype) for a, b in like])


def each(function: Callable) -> Callable:
    """`function` of one lane, for all at once.

    Under vmap every `cond` of a line search evaluates all its branches, and all lanes wait for the
    slowest: three evaluations or more a step. A single lane, as on the CPU, pays for what it does.
    """

    def run(*lanes):
        if jax.tree.leaves(lanes)[0].shape[0] > 1:
            return jax.vmap(function)(*lanes)
        return jax.tree.map(lambda a: jnp.asarray(a)[None], function(*take(lanes, 0)))

    return run
