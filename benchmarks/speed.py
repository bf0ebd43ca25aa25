"""How fast each hot path of a layer is, warm, and how fast the machine could be."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ifv_jax as ifv
from benchmarks.networks import Functions


def timed(
    function: Callable[[], Any], repeats: int = 1, *, warm_up: bool = True
) -> tuple[float, Any]:
    """Seconds of the fastest call but the first, which warms up, and what the last one returned."""
    result, seconds = function() if warm_up else None, np.inf
    for _ in range(repeats):
        jax.block_until_ready(result)
        began = time.perf_counter()
        result = jax.block_until_ready(function())
        seconds = min(seconds, time.perf_counter() - began)
    return seconds, result


def targets(count: int, features: int) -> jax.Array:
    """Sparse ones, (count, features)."""
    return ifv.sample_targets(jax.random.key(0), count, features=features)


def climb(work: Functions, start: Any, t: jax.Array, adam: int, lbfgs: int) -> ifv.Realizations:
    """FV from `start` (batch, ...) with so many steps."""
    config = ifv.FVConfig(
        adam_steps=adam,
        lbfgs_steps=lbfgs,
        batch_size=len(t),
        restarts=0,
        steps_per_call=max(adam, lbfgs),
    )
    variables = work.variables
    return ifv.visualize(
        work.objective, variables, t, jax.random.key(0), config=config, start=start
    )


@partial(jax.jit, static_argnums=0)
def _forward(response: ifv.Response, variables: Any, v: Any):
    """(r, pull): the forward pass and what a pull-back needs; compiled once for both below."""
    return jax.vjp(lambda v: response(variables, v), v)


def pull_back(work: Functions, one: Any) -> float:
    """Seconds to pull one cotangent back at a single sample; residuals kept, no forward pass."""
    r, pull = _forward(work.response, work.variables, one)
    again = jax.jit(lambda pull, cotangent: pull(cotangent))
    cotangent, count = jnp.ones_like(r), 25

    def several() -> None:  # as rows are: one after the other, and their mean is taken
        for _ in range(count):
            jax.block_until_ready(again(pull, cotangent))

    return timed(several, repeats=2)[0] / count


def forward_pass(work: Functions, one: Any) -> float:
    """Seconds of the response at a single sample, with what a pull-back needs."""
    return timed(lambda: _forward(work.response, work.variables, one), repeats=5)[0]


def jacobian_row(work: Functions, one: Any) -> float:
    """Seconds a row of J at a single sample, on one device, the forward pass left out."""
    device = jax.local_devices()[:1]
    seconds, jac = timed(
        lambda: ifv.jacobian(work.response, work.variables, one, devices=device), repeats=2
    )
    return (seconds - forward_pass(work, one)) / jac.response.shape[1]


class Inversion(NamedTuple):
    """Seconds a sample, all devices at work, and the result."""

    jacobian: float
    solve: float  # J J^T and the closed form
    predictions: ifv.Predictions
    jac: ifv.Jacobian
    data: ifv.Linearization


def inversion(work: Functions, v: Any) -> Inversion:
    """Inverts the samples v (batch, ...)."""
    count = len(jax.tree.leaves(v)[0])

    def find() -> ifv.Jacobian:
        return ifv.jacobian(work.response, work.variables, v)

    def solved(jac: ifv.Jacobian) -> tuple[ifv.Linearization, ifv.Predictions]:
        data = ifv.linearize(jac)
        on_host = ifv.Linearization(*(np.asarray(leaf) for leaf in data))
        return on_host, ifv.solve(on_host)

    jacobian, jac = timed(find)
    solve, (data, predictions) = timed(lambda: solved(jac), repeats=3)
    return Inversion(jacobian / count, solve / count, predictions, jac, data)


def solve_floor(features: int, parameters: int) -> float:
    """Seconds of a float64 matrix product with the FLOPs of J J^T, and of an `eigh` behind it.

    NumPy's, on all cores.
    """
    rng = np.random.default_rng(0)
    # Two matrices, or NumPy would notice the symmetry and do half the work.
    a, b = (rng.standard_normal((features, parameters)) for _ in range(2))
    product, gram = timed(lambda: a @ b.T, repeats=3)
    symmetric = gram + gram.T
    return product + timed(lambda: np.linalg.eigh(symmetric), repeats=3)[0]


def matmul_rate(size: int = 4096) -> float:
    """GFlop/s of a float32 matrix product: NumPy's on the CPU, all cores; else JAX's, full float32.

    What a share of the machine is measured against.
    """
    if jax.default_backend() == "cpu":
        a = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
        return 2e-9 * size**3 / timed(lambda: a @ a, repeats=5)[0]
    x = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda x: jnp.dot(x, x, precision=jax.lax.Precision.HIGHEST))
    return 2e-9 * size**3 / timed(lambda: product(x), repeats=10)[0]


def copy_rate(size: int = 2**27) -> float:
    """GB/s read and written by one core that copies what fits no cache."""
    here, there = np.ones(size, np.float32), np.zeros(size, np.float32)
    return 8e-9 * size / timed(lambda: np.copyto(there, here), repeats=5)[0]


def step_gflop(work: Functions, one: Any) -> float:
    """GFlop of the objective and its gradient at a single sample, as XLA counts them."""
    t = targets(1, work.response.feature_count(work.variables))
    compiled = jax.jit(work.objective.value_and_grad).lower(work.variables, one, t)
    costs = compiled.compile().cost_analysis()
    return float("nan") if costs is None else costs["flops"] / 1e9
