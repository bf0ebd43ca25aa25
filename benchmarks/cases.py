"""One layer's experiment from start to end, and what of it is reported and drawn."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import ifv_jax as ifv
from benchmarks import experiment, figures
from benchmarks.report import CLOSED_FORM, OFF_KINKS, Case, spread
from ifv_jax.status import usable


class Outcome(NamedTuple):
    """What one setting gave."""

    cases: list[Case]  # one for each estimator, the best last; the rest is the last one's
    angles: dict[str, np.ndarray]
    measured: experiment.Measured
    predictions: ifv.Predictions
    space: ifv.CriticalSpace | None


def run_case(
    setting: experiment.Setting,
    run: ifv.Run,
    *,
    verify: bool = True,
    describe: Callable[[ifv.CriticalSpace], dict] = lambda space: {},
) -> Outcome:
    """Visualizes, inverts and verifies.

    Where a critical space is found, and where directions across kinks are left out, the plainer
    estimator is reported, too. `describe` notes what a critical space is made of.
    """
    run = setting.part(run)
    response, objective = experiment.make(setting)
    measured = experiment.measure(setting, response, objective, run)
    cases, space, notes = [], None, {}
    if setting.critical:
        choice, notes = find_space(setting, measured, describe)
        if choice.space.complement.shape[1]:
            plain = experiment.predict(setting, measured, None)
            note = "whole feature space, no critical space"
            cases.append(to_case(setting, measured, plain, None, note=note))
            space = choice.space
    predictions = experiment.predict(setting, measured, space)
    off_kinks = setting.pairs > 0
    if off_kinks:
        cases.append(to_case(setting, measured, predictions, space, **notes))
        predictions = experiment.invert_off_kinks(setting, response, measured, space, run)
        notes = {}
    verified = None
    if verify:
        verified = experiment.verify(setting, objective, measured, predictions, run)
    cases.append(
        to_case(setting, measured, predictions, space, verified, off_kinks=off_kinks, **notes)
    )
    return Outcome(
        cases, angles(setting, measured, predictions, space), measured, predictions, space
    )


def find_space(
    setting: experiment.Setting,
    measured: experiment.Measured,
    describe: Callable[[ifv.CriticalSpace], dict] = lambda space: {},
) -> tuple[ifv.Choice, dict]:
    """The critical space by Algorithm 1, and notes on all that were candidates."""
    candidates = experiment.candidate_spaces(setting, measured)
    choice = experiment.choose_space(setting, measured, candidates)
    n = measured.targets.shape[1]
    spaces = {n: ifv.full_space(n)} | {c.space.basis.shape[1]: c.space for c in candidates}
    found = [
        {k: (None if v != v else v) for k, v in row._asdict().items()}
        | {"complement": describe(spaces[row.dimension])}
        for row in choice.table
    ]
    notes: dict = {"choice": choice.status.name.lower(), "spaces": found}
    if choice.space.complement.shape[1]:
        outside = np.asarray(ifv.fraction_outside(choice.space, measured.targets))
        notes["mean_target_outside"] = round(float(np.mean(outside)), 4)
    return choice, notes


def angles(
    setting: experiment.Setting, measured: experiment.Measured, predictions: ifv.Predictions, space
) -> dict[str, np.ndarray]:
    """Angular distances to the targets on the space, (samples,) each; invalid samples are 90."""
    targets = jnp.asarray(measured.targets)
    found = jnp.asarray(measured.fv_status) == ifv.Status.OK
    distance = partial(ifv.angular_distance, space=space)
    predicted = jnp.where(found[:, None], jnp.asarray(predictions.objective), 0)
    return {
        "predicted": np.asarray(distance(predicted, targets)),
        "response": np.asarray(distance(jnp.asarray(measured.response), targets)),
        "random": np.asarray(distance(experiment.random_targets(setting, measured), targets)),
    }


def to_case(
    setting: experiment.Setting,
    measured: experiment.Measured,
    predictions: ifv.Predictions,
    space: ifv.CriticalSpace | None,
    verified: experiment.Verified | None = None,
    *,
    off_kinks: bool = False,
    **notes,
) -> Case:
    """The numbers of one estimator for the report; `off_kinks` as made by `invert_off_kinks`."""
    if off_kinks:
        notes = {"pairs": setting.pairs, "deviation": setting.deviation, **notes}
    measured_angles = angles(setting, measured, predictions, space)
    status = np.where(
        np.asarray(measured.fv_status) != ifv.Status.OK, measured.fv_status, predictions.status
    )
    valid = np.asarray(usable(status))
    silent = np.sum(
        np.asarray(measured.targets) ** 2 * np.asarray(predictions.undetermined), axis=1
    )
    live = np.asarray(~predictions.undetermined).sum(axis=1)
    profile = ifv.coefficients(predictions.left_vectors, jnp.asarray(measured.targets))
    n = measured.targets.shape[1]
    return Case(
        name=setting.name,
        network=setting.network_name,
        layer=setting.layer,
        features=n,
        space_dim=n if space is None else space.basis.shape[1],
        aggregation=setting.aggregation_name,
        parametrization=setting.parametrization_name,
        cosine_power=setting.cosine_power,
        estimator=OFF_KINKS if off_kinks else CLOSED_FORM,
        source="image",
        samples=len(measured.targets),
        seed=setting.seed,
        adam_steps=setting.config.adam_steps,
        lbfgs_steps=setting.config.lbfgs_steps,
        status_counts=ifv.status_counts(status),
        angle_deg={who: spread(each) for who, each in measured_angles.items()},
        angle_valid_deg={who: spread(each[valid]) for who, each in measured_angles.items()},
        live_floor_deg=spread(np.degrees(np.arcsin(np.sqrt(np.clip(silent, 0, 1))))),
        ssim={who: spread(each) for who, each in (verified.ssim if verified else {}).items()},
        coefficients=[round(float(a), 5) for a in np.asarray(profile)[valid].mean(axis=0)],
        seconds={
            "visualize": _seconds(measured.seconds_visualize),
            "invert": None if off_kinks else _seconds(measured.seconds_invert),
            "reoptimize": None if verified is None else _seconds(verified.seconds),
        },
        notes={
            "residual": spread(predictions.residual),
            "gap": spread(predictions.gap),
            "significance": spread(measured.significance),
            "live_features": spread(live),
            **notes,
        },
    )


def picture(out: Path, setting: experiment.Setting, outcome: Outcome, most: int = 12) -> None:
    """A grid of the first samples; objectives are shown on the space they are compared on."""
    space = outcome.space or ifv.full_space(outcome.measured.targets.shape[1])

    def shown(rows):
        return np.asarray(ifv.project(space, rows[:most]))

    bars = {
        "target": shown(outcome.measured.targets),
        "predicted": shown(outcome.predictions.objective),
        "response": shown(outcome.measured.response),
    }
    labels = [str(i) for i in setting.features or range(space.basis.shape[0])]
    title = f"{setting.network_name}, {setting.name}: images found, and the objectives recovered"
    if outcome.cases[-1].off_kinks:
        title += " off kinks"
    images = np.asarray(outcome.measured.images[:most])
    figures.grid(out / f"{setting.slug}.png", title, images, bars, outcome.angles, labels)


def _seconds(value: experiment.Array) -> float | None:
    return None if np.isnan(value) else round(float(value), 1)
