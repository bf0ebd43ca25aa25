"""Is a prediction a true inverse? Re-optimize for it and see whether the image stays (Sec. 3.4)."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax import checks
from ifv_jax.checks import InputError
from ifv_jax.checks.job import check_parameters
from ifv_jax.checks.samples import check_network
from ifv_jax.engine import lanes
from ifv_jax.engine.runs import Run
from ifv_jax.metrics import check_window, ssim
from ifv_jax.objective import Objective
from ifv_jax.types import Device, PyTree
from ifv_jax.visualization import FVConfig, visualize

STABLE_SSIM = 0.9
"""Below this similarity to itself an image is called unstable (our choice; the paper's is lost)."""


class Reoptimization(NamedTuple):
    """What re-optimizing did to the images; batch axis first."""

    v: PyTree  # (batch, ...) parameters afterwards
    ssim: jax.Array  # (batch,) similarity of the image before and after, 1 is identical
    significance: jax.Array  # (batch,) of the objective that was optimized for, afterwards


class Verdict(NamedTuple):
    """Whether samples are stable optima, which is what the paper filters outliers with."""

    stable: jax.Array  # (batch,) bool, ssim >= threshold
    yardstick: jax.Array | None  # (batch,) bool, the same for the true target, where it is known


def reoptimize(
    objective: Objective,
    variables: PyTree,
    v: PyTree,
    directions: jax.Array,
    *,
    steps: int = 500,
    window: int = 11,
    learning_rate: float = 0.05,
    batch_size: int = 32,
    run: Run | str | os.PathLike[str] | None = None,
    progress: bool = False,
    devices: Sequence[Device] | None = None,
) -> Reoptimization:
    """Runs a fresh Adam for `steps` steps from v towards `directions` (batch, n), unit vectors.

    A true inverse leaves the image where it is. Adam's fresh state moves even a perfect optimum a
    little, so the similarity for the true target is the yardstick, not 1. Directions of length zero
    (predictions that failed) are replaced by the first axis and get similarity 0. `window` is that
    of `ssim`.
    """
    checks.check_kind(objective, Objective, "objective", "Make it with make_objective(response).")
    parametrization = objective.response.parametrization
    window = check_window(window, parametrization.shape[:2])
    v = check_parameters(parametrization, v)
    n = check_network(objective.response, variables)
    directions = _check_directions(directions, n)
    failed = jnp.linalg.norm(directions, axis=1) == 0
    axis = jax.nn.one_hot(0, directions.shape[1], dtype=directions.dtype)
    config = FVConfig(
        adam_steps=steps,
        lbfgs_steps=0,
        learning_rate=learning_rate,
        restarts=0,
        batch_size=batch_size,
    )
    found = visualize(
        objective,
        variables,
        jnp.where(failed[:, None], axis, directions),
        jax.random.key(0),
        config=config,
        start=v,
        run=run,
        progress=progress,
        devices=devices,
    )

    def images(v):
        return parametrization.in_unit_range(parametrization.apply(v))

    similarity = [
        ssim(images(lanes.take(v, part)), images(lanes.take(found.v, part)), window=window)
        for part in _slices(len(failed), config.batch_size)
    ]
    return Reoptimization(
        found.v, jnp.where(failed, 0, jnp.concatenate(similarity)), found.significance
    )


def verdict(
    predicted: jax.Array, target: jax.Array | None = None, *, threshold: float = STABLE_SSIM
) -> Verdict:
    """Stability from the similarities (batch,) after re-optimizing for prediction and target."""
    expected, do = "similarities (batch,)", "Pass `reoptimize(...).ssim`."
    predicted = checks.as_array(predicted, expected, do)
    if target is not None:
        target = checks.as_array(target, expected, do)
        if target.shape != predicted.shape:
            got = f"shapes {predicted.shape} and {target.shape}"
            raise InputError("similarities of the same samples", got, do)
    threshold = checks.check_real(
        threshold, "threshold", "a similarity in [-1, 1]", least=-1, most=1, do="Try 0.9."
    )
    return Verdict(predicted >= threshold, None if target is None else target >= threshold)


def _check_directions(directions, n: int) -> jax.Array:
    expected, do = f"directions (batch, {n})", "Pass predicted objectives, one a sample."
    directions = checks.as_array(directions, expected, do)
    if directions.ndim != 2 or directions.shape[1] != n:
        raise InputError(expected, f"shape {directions.shape}", do)
    return directions


def _slices(count: int, size: int) -> list[np.ndarray]:
    return [np.arange(a, min(a + size, count)) for a in range(0, count, size)]
