"""J, the Jacobian of the response, batched and in chunks of cotangents, and its Gram matrix."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ifv_jax import checks
from ifv_jax.checks import InputError
from ifv_jax.checks.job import check_parameters
from ifv_jax.checks.samples import check_network
from ifv_jax.engine import concurrency, lanes, network
from ifv_jax.engine.programs import is_traced
from ifv_jax.objective import Response
from ifv_jax.types import Device, PyTree

GRAM_COLUMNS = 16384
"""Columns of J that are widened to float64 at a time."""


WAITING = 16
"""Chunks of rows, for each that is computed at once, before they are put into J."""


class Jacobian(NamedTuple):
    """The linearization of f at each sample: r and J."""

    response: jax.Array  # (batch, n) r = f(v)
    matrix: jax.Array  # (batch, n, m) J, parameters flattened leaf by leaf, in their dtype


class Linearization(NamedTuple):
    """All that estimators need of the Jacobians: r and J J^T, much smaller than J itself."""

    response: jax.Array | np.ndarray  # (batch, n)
    gram: jax.Array | np.ndarray  # (batch, n, n) float64, J J^T


def default_chunk() -> int:
    """Cotangents pulled back at once: 1 on the CPU, where more cost more each; 32 elsewhere."""
    return 1 if jax.default_backend() == "cpu" else 32


def jacobian(
    response: Response,
    variables: PyTree,
    v: PyTree,
    *,
    chunk: int | None = None,
    devices: Sequence[Device] | None = None,
) -> Jacobian:
    """J (batch, n, m) of the response at v, one forward pass and n / chunk backward passes.

    Args:
      v: parameters, leading axis batch. chunk: rows computed at once, see `default_chunk`.
      devices: samples are spread over them; all local ones by default.
    Memory: the result, the residuals of one forward pass, and one chunk of rows.
    Rows of non-finite samples are non-finite; the other samples are unharmed.
    """
    checks.check_kind(response, Response, "response", "Pass the response, not its objective.")
    v = check_parameters(response.parametrization, v)
    check_network(response, variables)
    count = checks.check_batch(v)
    chunk = default_chunk() if chunk is None else checks.check_integer(chunk, "chunk", least=1)
    used = lanes.resolve_devices(devices)
    ((padded, _),) = lanes.groups(count, count, used)

    v = lanes.place(lanes.take(v, padded), used)
    shape = jax.eval_shape(response, variables, v)
    n = shape.shape[1]
    chunk = min(chunk, n)
    leaves = jax.tree.leaves(v)
    size = sum(leaf[0].size for leaf in leaves)
    # Gradients have the dtype of v, whatever the network computes in.
    dtype, layout = jnp.result_type(*leaves), lanes.layout(used)
    matrix = jnp.zeros((*shape.shape, size), dtype, device=layout)
    within, traced = network.Network(response, used, variables), is_traced((variables, v))
    responses = []
    for lane in network.turns(used, len(padded)):
        at = within.forward(network.some(used, lane, v))
        responses.append(at.response)
        # The last chunk overlaps its neighbour rather than being a new shape.
        starts = [min(first, n - chunk) for first in range(0, n, chunk)]
        many = concurrency.workers(used)
        ahead = WAITING * many if many > 1 else 1
        for some in (starts[i : i + ahead] for i in range(0, n, ahead)):
            pulled = concurrency.concurrently(
                partial(_rows, used, chunk, at),
                some,
                used,
                traced=traced,
            )
            for row, rows in zip(some, pulled, strict=True):
                matrix = _put_rows(used, matrix, rows, lane, row)
    return Jacobian(network.join(used, responses)[:count], matrix[:count])


def _rows(devices, chunk: int, at: network.Pass, first: int) -> jax.Array:
    axes = _axes(devices, chunk, at.response, first)
    # Laid out as all cotangents are: for another layout the network would be compiled anew.
    return at.pull_back(lanes.place(axes, devices))


@partial(jax.jit, static_argnums=(0, 1))
def _axes(devices, chunk: int, r: jax.Array, first):
    """The axes of feature space from `first` on, as cotangents of r."""

    def call(first, r):
        axes = jax.nn.one_hot(first + jnp.arange(chunk), r.shape[1], dtype=r.dtype)
        return jnp.broadcast_to(axes, (r.shape[0], *axes.shape))

    axes = lanes.on_each_device(call, devices)(first, r)
    return axes[:, 0] if chunk == 1 else axes


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _put_rows(devices, matrix, rows, lane, first):
    def call(at, matrix, rows):
        rows = rows.reshape(rows.shape[0], -1, matrix.shape[2])
        return jax.lax.dynamic_update_slice(matrix, rows, (*at, 0))

    return lanes.on_each_device(call, devices)((lane, first), matrix, rows)


def linearize(jac: Jacobian) -> Linearization:
    """J J^T in float64, as exact for the smallest singular vector as a float64 SVD of J needs.

    A Gram matrix squares the condition number: in float32 what lies below 1e-3 of the largest
    singular value would be noise; in float64 that bound is 1e-8.
    """
    jac = _check_jacobian(jac)
    return Linearization(jac.response, gram_matrix(jac.matrix))


def gram_matrix(rows: jax.Array) -> jax.Array | np.ndarray:
    """All inner products of rows, (batch, rows, m) -> (batch, rows, rows) float64."""
    traced = isinstance(rows, Tracer)
    if not traced and lanes.alone(tuple(rows.devices())):
        # BLAS knows that the product is symmetric and does half the work; XLA does not.
        return np.stack([_gram(j) for j in _on_host(rows)])
    with jax.enable_x64(True):
        gram = jnp.zeros(())
        for part in _parts(rows):
            gram = gram + _wide_gram(part)
        return gram


def _check_jacobian(jac) -> Jacobian:
    expected, do = "r (batch, n) and J (batch, n, m)", "Pass what `jacobian` returns."
    checks.check_kind(jac, Jacobian, "jac", do)
    jac = Jacobian(*(checks.as_array(one, expected, do) for one in jac))
    if jac.matrix.ndim != 3 or jac.matrix.shape[:2] != jac.response.shape:
        got = f"shapes {jac.response.shape} and {jac.matrix.shape}"
        raise InputError(expected, got, do)
    return jac


def _parts(matrix):
    """`GRAM_COLUMNS` columns at a time, so that not all of J is widened to float64 at once."""
    return (
        matrix[..., first : first + GRAM_COLUMNS]
        for first in range(0, matrix.shape[-1], GRAM_COLUMNS)
    )


def _on_host(matrix: jax.Array) -> list[np.ndarray]:
    """Each sample of an array on the CPU, (n, m), where it lies: samples are whole on a device.

    Where the samples do not divide by the devices, each of these holds all.
    """
    shards = {shard.index[0].start or 0: shard.data for shard in matrix.addressable_shards}
    return [one for first in sorted(shards) for one in np.asarray(shards[first])]


def _gram(j: np.ndarray) -> np.ndarray:
    gram = np.zeros((len(j), len(j)))
    for part in _parts(j):
        wide = part.astype(np.float64)
        gram += wide @ wide.T
    return gram


@jax.jit
def _wide_gram(matrix: jax.Array) -> jax.Array:
    wide = matrix.astype(jnp.float64)
    return jnp.einsum("bim,bjm->bij", wide, wide, precision=jax.lax.Precision.HIGHEST)
