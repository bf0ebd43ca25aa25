"""The report of an experiment: a case for each estimator, and the table of all cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import ifv_jax as ifv
from benchmarks.estimators import ESTIMATORS, titled
from benchmarks.setting import Setting
from benchmarks.stages import DIRECTIONS, Array, Found, Verified, random_targets
from benchmarks.summary import spread
from ifv_jax.status import usable


class Estimate(NamedTuple):
    """The result of one estimator for a setting."""

    estimator: str  # its name
    predictions: ifv.Predictions
    space: ifv.CriticalSpace | None  # that was searched; None: all of feature space
    seconds: Array | None  # for all samples; None: not known
    verified: Verified | None
    notes: dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One setting and one estimator, measured. Angles in degrees, over all sampled targets.

    A sample without a valid prediction counts as 90 degrees in `angle_deg` and is left out of
    `angle_valid_deg`. Angles are taken in a space of `space_dim` dimensions out of `features`.
    """

    name: str
    network: str
    layer: str
    features: int
    space_dim: int
    aggregation: str
    parametrization: str
    cosine_power: float
    estimator: str
    source: str
    samples: int
    seed: int
    adam_steps: int
    lbfgs_steps: int
    status_counts: dict
    angle_deg: dict
    angle_valid_deg: dict
    live_floor_deg: dict
    ssim: dict
    coefficients: list
    seconds: dict
    notes: dict


def angles(setting: Setting, found: Found, estimate: Estimate) -> dict[str, np.ndarray]:
    """Angular distances to the targets on the space, (samples,) each; invalid samples are 90."""
    targets = jnp.asarray(found.targets)
    distance = partial(ifv.angular_distance, space=estimate.space)
    valid = jnp.asarray(found.status) == ifv.Status.OK
    predicted = jnp.where(valid[:, None], jnp.asarray(estimate.predictions.objective), 0)
    return {
        "predicted": np.asarray(distance(predicted, targets)),
        "response": np.asarray(distance(jnp.asarray(found.response), targets)),
        "random": np.asarray(distance(random_targets(setting, found), targets)),
    }


def status(found: Found, predictions: ifv.Predictions) -> np.ndarray:
    """(samples,) int8: that of Feature Visualization where it failed, else the prediction's."""
    return np.where(
        np.asarray(found.status) != ifv.Status.OK, found.status, np.asarray(predictions.status)
    )


def to_case(setting: Setting, found: Found, estimate: Estimate) -> Case:
    """The numbers of one estimator."""
    predictions, verified = estimate.predictions, estimate.verified
    measured = angles(setting, found, estimate)
    statuses = status(found, predictions)
    valid = np.asarray(usable(statuses))
    undetermined = np.asarray(predictions.undetermined)
    silent = np.sum(np.asarray(found.targets) ** 2 * undetermined, axis=1)
    profile = ifv.coefficients(predictions.left_vectors, jnp.asarray(found.targets))
    n = found.targets.shape[1]
    return Case(
        name=setting.name,
        network=setting.network_name,
        layer=setting.layer,
        features=n,
        space_dim=n if estimate.space is None else estimate.space.basis.shape[1],
        aggregation=setting.aggregation_name,
        parametrization=setting.parametrization_name,
        cosine_power=setting.cosine_power,
        estimator=estimate.estimator,
        source="image",
        samples=len(found.targets),
        seed=setting.seed,
        adam_steps=setting.config.adam_steps,
        lbfgs_steps=setting.config.lbfgs_steps,
        status_counts=ifv.status_counts(statuses),
        angle_deg={who: spread(each) for who, each in measured.items()},
        angle_valid_deg={who: spread(each[valid]) for who, each in measured.items()},
        live_floor_deg=spread(np.degrees(np.arcsin(np.sqrt(np.clip(silent, 0, 1))))),
        ssim={who: spread(verified.ssim[who]) for who in DIRECTIONS} if verified else {},
        coefficients=[round(float(a), 5) for a in np.asarray(profile)[valid].mean(axis=0)],
        seconds={
            "visualize": _seconds(found.seconds),
            "invert": _seconds(estimate.seconds),
            "reoptimize": _seconds(verified.seconds if verified else None),
        },
        notes={
            "residual": spread(predictions.residual),
            "gap": spread(predictions.gap),
            "significance": spread(found.significance),
            "live_features": spread((~undetermined).sum(axis=1)),
            **ESTIMATORS[estimate.estimator].notes(setting),
            **estimate.notes,
        },
    )


def table(cases: Sequence[Case]) -> str:
    """The cases as a text table."""
    head = f"{'case':<42}{'samples':>8}{'dim':>5}{'predicted':>19}{'response':>19}{'random':>9}"
    lines = [head, f"{'':<42}{'':>8}{'':>5}{'median   p90':>19}{'median   p90':>19}{'median':>9}"]
    for case in cases:
        angle = case.angle_deg
        cells = [
            f"{angle[who]['median']:.2f} {angle[who]['p90']:>6.2f}"
            for who in ("predicted", "response")
        ]
        name = titled(case.name, case.estimator)
        lines.append(
            f"{name:<42}{case.samples:>8}{case.space_dim:>5}{cells[0]:>19}{cells[1]:>19}"
            f"{angle['random']['median']:>9.2f}"
        )
    return "\n".join([*lines, "angles in degrees, over all sampled targets"])


def similarities(cases: Sequence[Case]) -> str:
    """SSIM after re-optimizing, a line for each case that was verified."""
    lines = []
    for case in cases:
        parts = [f"{who} {each['median']:.3f}" for who, each in case.ssim.items()]
        if parts:
            lines.append(
                f"similarity to itself after re-optimizing ({case.name}): {', '.join(parts)}"
            )
    return "\n".join(lines)


def _seconds(value: Any) -> float | None:
    return None if value is None or np.isnan(value) else round(float(value), 1)
