"""The stages of an experiment that come before and after the estimators: visualize and verify."""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ifv_jax as ifv
from benchmarks.networks import Functions
from benchmarks.setting import Setting

Array = Any  # of JAX while computing, of NumPy when read back from a checkpoint
DIRECTIONS = ("predicted", "target", "response", "random")  # that a prediction is verified by


class Found(NamedTuple):
    """The result of Feature Visualization for each target, batch axis first."""

    targets: Array  # (samples, n)
    v: Array  # parameters of the images
    images: Array  # (samples, H, W, C)
    response: Array  # (samples, n)
    status: Array  # (samples,) int8, see ifv.Status
    significance: Array  # (samples,)
    seconds: Array  # NaN if a part of it was done by a process that was killed


class Verified(NamedTuple):
    """Similarities after re-optimization, (samples,) for each direction, with the seconds taken."""

    ssim: dict[str, Array]
    seconds: Array  # NaN as above


def visualize(setting: Setting, functions: Functions, run: ifv.Run) -> Found:
    """Images for the setting's targets, sampled unless they are given."""
    variables, response, objective = functions
    targets = setting.targets
    if targets is None:
        targets = ifv.sample_targets(
            setting.keys["targets"],
            setting.samples,
            features=response.feature_count(variables),
            canonical=setting.canonical,
        )

    began = start_clock(run, "visualize")
    # Also called if everything is in `run`: it checks that this is the job of this network.
    found = ifv.visualize(
        objective,
        variables,
        targets,
        setting.keys["start"],
        config=setting.config,
        run=run,
        progress=True,
    )
    jax.block_until_ready(found)
    seconds = np.asarray(time.monotonic() - began)

    def compute() -> Found:
        images = jax.lax.map(response.parametrization.apply, found.v[:, None])[:, 0]
        return Found(
            targets, found.v, images, found.response, found.status, found.significance, seconds
        )

    return run.compute("found", Found, compute)


def verify(
    setting: Setting, functions: Functions, found: Found, predictions: ifv.Predictions, run: ifv.Run
) -> Verified:
    """SSIM of the first samples after re-optimizing for prediction, target, response, random."""
    first = slice(0, min(setting.reoptimized, len(found.targets)))
    rows = (
        jnp.asarray(predictions.objective[first]),
        jnp.asarray(found.targets[first]),
        _unit(jnp.asarray(found.response[first])),
        random_targets(setting, found)[first],
    )
    directions = dict(zip(DIRECTIONS, rows, strict=True))
    run = run.part("verify", (directions, found.v[first], setting.reoptimization_steps))

    def compute() -> Verified:
        began = start_clock(run, "verify")
        again = ifv.reoptimize(
            functions.objective,
            functions.variables,
            jnp.concatenate([jnp.asarray(found.v[first])] * len(directions)),
            jnp.concatenate(list(directions.values())),
            steps=setting.reoptimization_steps,
            run=run,
            progress=True,
            batch_size=setting.config.batch_size,
        )
        parts = np.split(np.asarray(again.ssim), len(directions))
        return Verified(
            dict(zip(directions, parts, strict=True)), np.asarray(time.monotonic() - began)
        )

    return run.compute("verified", Verified, compute)


def random_targets(setting: Setting, found: Found) -> jax.Array:
    """Random objectives (samples, n), which a prediction must beat."""
    count, n = found.targets.shape
    return ifv.random_targets(setting.keys["random"], count, features=n)


def start_clock(run: ifv.Run, stage: str) -> float:
    """Now, in seconds of the monotonic clock.

    NaN if an earlier process began this stage and was killed: its time is not known.
    """
    if run.folder is not None:
        mark = run.folder / f"clock_of_{stage}"
        if mark.exists():
            return float("nan")
        mark.touch()
    return time.monotonic()


def _unit(rows: jax.Array) -> jax.Array:
    length = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return jnp.where(length > 0, rows / jnp.where(length > 0, length, 1), 0)
