"""Opt. 3: the objective that an input is an optimum of, in closed form (Sec. 2.1 of the paper)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ifv_jax.checks import (
    InputError,
    check_batch,
    check_flag,
    check_integer,
    check_kind,
    check_some_finite,
    describe,
)
from ifv_jax.checks.job import check_parameters, check_space
from ifv_jax.checks.samples import check_network
from ifv_jax.critical_space import CriticalSpace
from ifv_jax.engine import hosts, lanes
from ifv_jax.jacobian import Jacobian, Linearization, jacobian, linearize
from ifv_jax.kinks import ROUNDS, Perturbations, check_perturbations, without_kinks
from ifv_jax.objective import Response
from ifv_jax.significance import check_cosine_power, unit, weight_matrix
from ifv_jax.status import Status, usable
from ifv_jax.types import Device, PyTree

RANK_CUTOFF = 1e-9
"""Rows of J below this fraction of the longest are taken for zero: float32 round-off of silence."""


class Predictions(NamedTuple):
    """The predicted objectives and how far to trust them; batch axis first.

    Singular values are those of W J on the space that was searched, ascending; the entries beyond
    its dimension are infinite, so that the arrays of a batch have one shape.
    """

    objective: jax.Array  # (batch, n) unit vectors, <r, t> > 0; zero unless `usable(status)`
    singular_values: jax.Array  # (batch, n) ascending
    residual: jax.Array  # (batch,) sigma_1 / sigma_max: how far from optimal, 0 is perfect
    gap: jax.Array  # (batch,) sigma_1 / sigma_2: near 0 is unambiguous, 1 is a coin toss
    undetermined: jax.Array  # (batch, n) bool, features this input says nothing about
    status: jax.Array  # (batch,) int8, see Status
    left_vectors: jax.Array | None  # (batch, n, n) columns by singular value, on request


Refine = Callable[[Jacobian, Linearization, PyTree, np.ndarray], Linearization]


def invert(
    response: Response,
    variables: PyTree,
    v: PyTree,
    *,
    cosine_power: float = 2.0,
    space: CriticalSpace | None = None,
    left_vectors: bool = False,
    kinks: Perturbations | None = None,
    chunk: int | None = None,
    batch_size: int = 8,
    progress: bool = False,
    devices: Sequence[Device] | None = None,
) -> Predictions:
    """Recovers the objectives that the inputs phi(v) are optima of.

    Args:
      response: f, see `make_response`. variables: the network's weights.
      v: parameters, leading axis batch; for given images `parametrization.invert(images)`.
      cosine_power: k of the objective that FV maximized.
      space: the critical space to search; all of feature space by default.
      left_vectors: also return the left singular vectors of W J.
      kinks: leave out directions that cross kinks of the network, see `ifv_jax.kinks`.
      chunk: rows of J at once. batch_size: samples whose J is held at once; on the CPU no more
        than one a device.
    Returns: `Predictions`. A sample that fails numerically says so in its status, and one without
      a positive response, at which the sign of the prediction is a convention.
    Raises: InputError for bad input, and if every single sample is non-finite.
    """
    k, left_vectors = check_cosine_power(cosine_power), check_flag(left_vectors, "left_vectors")
    check_kind(response, Response, "response", "Pass the response, not its objective.")
    v = check_parameters(response.parametrization, v)
    devices = lanes.resolve_devices(devices)
    n = check_network(response, variables)
    check_space(space, n)
    known = partial(solve, cosine_power=k, space=space)
    refine = None
    if kinks is not None:
        size = sum(leaf[0].size for leaf in jax.tree.leaves(v))
        around = check_perturbations(kinks, n, size)
        refine = _off_kinks(response, variables, known, k, around, devices)
    data = _linearize_groups(
        response, variables, v, chunk, batch_size, progress, devices, refine=refine
    )
    predictions = known(data, left_vectors=left_vectors)
    check_some_finite(predictions.status, "the response or the Jacobian")
    return predictions


def _off_kinks(
    response: Response,
    variables: PyTree,
    known: Callable[[Linearization], Predictions],
    k: float,
    around: Perturbations,
    devices: Sequence[Device] | None,
) -> Refine:
    """Takes what the kinks near v contribute out of a linearization, given how it is solved."""
    weigh = jax.vmap(partial(weight_matrix, cosine_power=k))

    def refine(jac: Jacobian, plain: Linearization, v: PyTree, indices) -> Linearization:
        plain = part = _on_host(plain)  # solved as in the end, wherever J came from
        for _ in range(ROUNDS):
            # The gradient that jumps across the kinks is the unknown objective's: the last guess.
            objective = known(part).objective
            w = weigh(jnp.asarray(part.response, objective.dtype))
            cotangents = jnp.einsum("bij,bj->bi", w, objective)
            before = part.gram
            part = without_kinks(
                response, variables, v, jac, cotangents, around, indices, devices, plain
            )
            part = _on_host(part)
            if np.array_equal(part.gram, before):
                break  # so would the next round be
        return part

    return refine


def linearize_all(
    response: Response,
    variables: PyTree,
    v: PyTree,
    *,
    chunk: int | None = None,
    batch_size: int = 8,
    progress: bool = False,
    devices: Sequence[Device] | None = None,
) -> Linearization:
    """r and J J^T of any number of samples, as host arrays; `batch_size` Jacobians at a time."""
    return _linearize_groups(response, variables, v, chunk, batch_size, progress, devices)


def _linearize_groups(
    response: Response,
    variables: PyTree,
    v: PyTree,
    chunk: int | None,
    batch_size: int,
    progress: bool,
    devices: Sequence[Device] | None,
    refine: Refine | None = None,
) -> Linearization:
    """`linearize_all`, with refine(J, its linearization, v, indices) of each group in its place."""
    check_kind(response, Response, "response", "Pass the response, not its objective.")
    v = check_parameters(response.parametrization, v)
    if chunk is not None:
        chunk = check_integer(chunk, "chunk", least=1)
    batch_size = check_integer(batch_size, "batch_size", least=1)
    progress = check_flag(progress, "progress")
    used = devices = lanes.resolve_devices(devices)
    if lanes.alone(used):
        batch_size = min(batch_size, len(used))  # more at once would be no faster and hold more J
    pieces = lanes.groups(check_batch(v), batch_size, used, hosts.count())
    with tqdm(total=hosts.rounds(len(pieces)), disable=not progress, desc="invert") as bar:

        def compute(number: int) -> Linearization:
            indices, _ = pieces[number]
            here = lanes.take(v, indices)
            jac = jacobian(response, variables, here, chunk=chunk, devices=devices)
            part = linearize(jac)
            if refine is not None:
                part = refine(jac, part, here, indices)
            bar.update()
            return _on_host(part)

        parts = hosts.gather(compute, pieces)
    return Linearization(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))


def _on_host(part: Linearization) -> Linearization:
    return Linearization(*(np.asarray(leaf) for leaf in part))


def solve(
    data: Linearization,
    *,
    cosine_power: float = 2.0,
    space: CriticalSpace | None = None,
    left_vectors: bool = False,
) -> Predictions:
    """Opt. 3 from r and J J^T alone: a float64 eigendecomposition of (W J)(W J)^T for each sample.

    Known trivial solutions are kept out. Let S hold the complement U of the critical space and the
    axes of features whose row of J is zero. Every u in S has J^T u = 0, so W^-1 u solves the
    minimization whatever the objective was. The search runs over the orthogonal complement of
    W^-1 S, the sign is fixed there by <r, t> > 0, and the result is projected onto the critical
    space. Where <r, u> = 0, W^-1 u is u up to a factor, and this is the paper's restriction to C.
    """
    k, left_vectors = check_cosine_power(cosine_power), check_flag(left_vectors, "left_vectors")
    check_kind(data, Linearization, "data", "Pass what `linearize_all` or `linearize` returns.")
    n = _check_linearization(data)
    check_space(space, n)
    with jax.enable_x64(True):
        complement = (
            jnp.zeros((n, 0)) if space is None else jnp.asarray(space.complement, jnp.float64)
        )
        return _solve(k, left_vectors, data.response, data.gram, complement)


def _check_linearization(data: Linearization) -> int:
    do = "Pass what `linearize_all` or `linearize` returns."
    for one in data:
        if not isinstance(one, jax.Array | np.ndarray):
            raise InputError("arrays r (batch, n) and J J^T (batch, n, n)", describe(one), do)
    shape = data.response.shape
    if len(shape) != 2 or 0 in shape or data.gram.shape != (*shape, shape[1]):
        got = f"shapes {shape} and {data.gram.shape}"
        raise InputError("r (batch, n) and J J^T (batch, n, n)", got, do)
    return shape[1]


@partial(jax.jit, static_argnames=("k", "left_vectors"))
def _solve(k: float, left_vectors: bool, response, gram, complement) -> Predictions:
    solve_one = partial(_solve_one, k, complement)
    solve_all = jax.vmap(solve_one)
    if jax.default_backend() == "cpu":  # alone, a sample has the same bits in any batch
        solve_all = lambda *samples: jax.lax.map(lambda one: solve_one(*one), samples)  # noqa: E731
    objective, sigma, vectors, rank, undetermined, status = solve_all(response, gram)
    last = jnp.take_along_axis(sigma, jnp.maximum(rank - 1, 0)[:, None], axis=1)[:, 0]
    second = sigma[:, min(1, sigma.shape[1] - 1)]
    nothing = jnp.where(usable(status), 0.0, jnp.nan)
    residual = jnp.where(last > 0, sigma[:, 0] / jnp.where(last > 0, last, 1), 0.0) + nothing
    gap = jnp.where(second > 0, sigma[:, 0] / jnp.where(second > 0, second, 1), 1.0) + nothing
    # Solved in float64, reported in the dtype that came: nobody else needs float64 switched on.
    # Half precision would lose what the solution has.
    dtype = jnp.promote_types(response.dtype, jnp.float32)
    objective, sigma, residual, gap, vectors = (
        a.astype(dtype) for a in (objective, sigma, residual, gap, vectors)
    )
    return Predictions(
        objective, sigma, residual, gap, undetermined, status, vectors if left_vectors else None
    )


def _solve_one(k: float, complement, response, gram):
    n = response.shape[0]
    eye = jnp.eye(n)
    r = response.astype(jnp.float64)
    finite = jnp.isfinite(r).all() & jnp.isfinite(gram).all()
    r = jnp.where(finite, r, 0.0)
    gram = jnp.where(finite, gram, 0.0)

    # In units of the longest row, so that none is small beside 1.
    longest = jnp.diag(gram).max()
    unit_of_sigma = jnp.sqrt(jnp.where(longest > 0, longest, 1))
    gram = gram / jnp.square(unit_of_sigma)
    silent = jnp.diag(gram) <= RANK_CUTOFF**2
    searched, excluded = _search_space(k, unit(r), silent, complement)
    rank = jnp.round(jnp.trace(searched)).astype(jnp.int32)

    w = weight_matrix(r, cosine_power=k)
    m = searched @ w @ gram @ w @ searched
    # Directions that are not searched go to the far end of the spectrum.
    beyond = 2 * jnp.trace(m) + 1
    values, vectors = jnp.linalg.eigh((m + m.T) / 2 + beyond * (eye - searched))
    inside = jnp.arange(n) < rank
    sigma = jnp.where(inside, unit_of_sigma * jnp.sqrt(jnp.maximum(values, 0)), jnp.inf)
    vectors = vectors * inside

    # <r, y> > 0 on the unprojected solution, then project along what cannot be determined.
    y = vectors[:, 0] * jnp.where(r @ vectors[:, 0] < 0, -1.0, 1.0)
    objective = unit(y - excluded @ y)
    positive = jnp.any((r > 0) & ~silent)
    status = jnp.where(positive, Status.OK, Status.SIGN_CONVENTION)
    status = jnp.where(rank == 0, Status.UNDETERMINED, status)
    status = jnp.where(jnp.any(r != 0), status, Status.NO_RESPONSE)
    status = jnp.where(finite, status, Status.NON_FINITE).astype(jnp.int8)
    objective = jnp.where(usable(status), objective, 0.0)
    return objective, sigma, vectors, rank, silent, status


def _search_space(k: float, rh, silent, complement):
    """Projectors onto the complement of W^-1 S, and onto S = span(silent axes, complement).

    The former is W S^perp: the part of S^perp across rh stays where it is; the part along rh,
    p = P rh, is turned into W p = (k + 1) p - k |p|^2 rh.
    """
    excluded = jnp.diag(silent.astype(jnp.float64))
    if complement.shape[1]:
        # An orthonormal basis of what U adds to the axes; its rank may be lower than U's.
        rest = complement * ~silent[:, None]
        square, basis = jnp.linalg.eigh(rest @ rest.T)
        basis = basis * (square > 1e-12)
        excluded = excluded + basis @ basis.T
    free = jnp.eye(rh.shape[0]) - excluded
    p = free @ rh
    along = unit(p)
    turned = unit((k + 1) * p - k * jnp.sum(p * p) * rh)
    searched = free - jnp.outer(along, along) + jnp.outer(turned, turned)
    return (searched + searched.T) / 2, excluded
