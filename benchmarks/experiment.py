"""The paper's experiment for one layer: sample targets, visualize, invert, verify, report."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ifv_jax as ifv
from benchmarks import figures
from benchmarks.report import Case, spread

Array = Any  # of JAX while computing, of NumPy when read back from a checkpoint


@dataclass(frozen=True)
class Setting:
    """What is measured. `features` are indices into the layer's channels; None is all of them."""

    name: str
    network_name: str
    network: Any  # models' Network: apply, variables, input_shape
    layer: str
    features: tuple[int, ...] | None
    samples: int
    canonical: int  # how many of them are single features
    config: ifv.FVConfig
    cosine_power: float = 2.0
    pairs: int = 0  # of perturbations to find kinks by; 0: they are not looked for
    deviation: float = 1.5e-4  # of the perturbations
    tau_max: float = 0.1  # largest threshold that Algorithm 1 tries
    aggregation_name: str = "max_mean"
    aggregation: Callable = ifv.max_mean
    parametrization_name: str = "sigmoid_pixels"
    parametrization: ifv.Parametrization | None = None  # sigmoid pixels of the network's shape
    reoptimized: int = 16  # samples, the first ones
    reoptimization_steps: int = 500
    seed: int = 0

    @property
    def keys(self) -> dict[str, jax.Array]:
        """One key for each use of randomness."""
        names = ("targets", "start", "random")
        keys = dict(zip(names, jax.random.split(jax.random.key(self.seed), 3), strict=True))
        return {**keys, "kinks": jax.random.fold_in(keys["random"], 1)}


class Measured(NamedTuple):
    """All samples of a setting, batch axis first, with the seconds each stage took."""

    targets: Array
    v: Array
    images: Array
    response: Array
    fv_status: Array
    significance: Array
    gram: Array
    seconds_visualize: Array  # NaN if a part of it was done by a process that was killed
    seconds_invert: Array


class Verified(NamedTuple):
    """Similarities after re-optimization, (samples,) for each direction, with the seconds taken."""

    ssim: dict[str, Array]
    seconds: Array  # NaN as above


def make(setting: Setting) -> tuple[ifv.Response, ifv.Objective]:
    """The response and the objective of a setting; make them once, they carry what is compiled."""
    response = ifv.make_response(
        partial(setting.network.apply, upto=setting.layer),
        setting.parametrization or ifv.sigmoid_pixels(setting.network.input_shape),
        setting.aggregation,
        features=setting.features,
    )
    return response, ifv.make_objective(response, cosine_power=setting.cosine_power)


def measure(
    setting: Setting, response: ifv.Response, objective: ifv.Objective, run: ifv.Run
) -> Measured:
    """Visualizes the sampled targets and linearizes the response at what was found."""
    variables = setting.network.variables
    n = response.feature_count(variables)
    targets = ifv.sample_targets(
        setting.keys["targets"], setting.samples, features=n, canonical=setting.canonical
    )

    def compute() -> Measured:
        began = _start_clock(run)
        found = ifv.visualize(
            objective, variables, targets, setting.keys["start"],
            config=setting.config, run=run, progress=True,
        )  # fmt: skip
        jax.block_until_ready(found)
        middle = time.monotonic()
        data = ifv.linearize_all(response, variables, found.v, progress=True)
        end = time.monotonic()
        images = jax.lax.map(response.parametrization.apply, found.v[:, None])[:, 0]
        return Measured(
            targets, found.v, images, found.response, found.status, found.significance, data.gram,
            np.asarray(middle - began), np.asarray(end - middle),
        )  # fmt: skip

    return run.compute("measured", Measured, compute)


def invert_off_kinks(
    setting: Setting, response: ifv.Response, measured: Measured, space, run: ifv.Run
) -> ifv.Predictions:
    """The closed form on the directions that cross no kinks, see `ifv.Perturbations`."""
    kinks = ifv.Perturbations(setting.keys["kinks"], setting.pairs, setting.deviation)
    complement = None if space is None else np.asarray(space.complement)
    run = run.part("off_kinks", (setting.pairs, setting.deviation, complement))

    def compute() -> ifv.Predictions:
        return ifv.invert(
            response, setting.network.variables, measured.v, kinks=kinks, space=space,
            cosine_power=setting.cosine_power, left_vectors=True, progress=True,
        )  # fmt: skip

    return run.compute("predicted", ifv.Predictions, compute)


def predict(
    setting: Setting, measured: Measured, space: ifv.CriticalSpace | None, samples=slice(None)
) -> ifv.Predictions:
    """The closed form on what was measured."""
    data = ifv.Linearization(measured.response[samples], measured.gram[samples])
    return ifv.solve(data, cosine_power=setting.cosine_power, space=space, left_vectors=True)


def candidate_spaces(
    setting: Setting, measured: Measured, samples: int = 32
) -> tuple[ifv.Candidate, ...]:
    """What Algorithm 1 finds on the first samples."""
    gram, response = (np.asarray(a[:samples]) for a in (measured.gram, measured.response))
    return ifv.candidate_spaces(ifv.spectra(gram), response=response, tau_max=setting.tau_max)


def choose_space(
    setting: Setting,
    measured: Measured,
    candidates: tuple[ifv.Candidate, ...],
    samples: int = 32,
) -> ifv.Choice:
    """The choice among them by the known targets of the first samples."""
    first = slice(0, samples)
    return ifv.choose_space(
        candidates,
        lambda space: predict(setting, measured, space, first).objective,
        jnp.asarray(measured.targets[first]),
    )


def verify(
    setting: Setting,
    objective: ifv.Objective,
    measured: Measured,
    predictions: ifv.Predictions,
    run: ifv.Run,
) -> Verified:
    """SSIM of the first samples after re-optimizing for prediction, target, response, random."""
    count = min(setting.reoptimized, len(measured.targets))
    first = slice(0, count)
    directions = {
        "predicted": jnp.asarray(predictions.objective[first]),
        "target": jnp.asarray(measured.targets[first]),
        "response": _unit(jnp.asarray(measured.response[first])),
        "random": _random(setting, measured)[first],
    }
    run = run.part("verify", (directions, measured.v[first], setting.reoptimization_steps))

    def compute() -> Verified:
        began = _start_clock(run)
        found = ifv.reoptimize(
            objective, setting.network.variables,
            jnp.concatenate([jnp.asarray(measured.v[first])] * len(directions)),
            jnp.concatenate(list(directions.values())),
            steps=setting.reoptimization_steps, run=run, progress=True,
            batch_size=setting.config.batch_size,
        )  # fmt: skip
        parts = np.split(np.asarray(found.ssim), len(directions))
        return Verified(
            dict(zip(directions, parts, strict=True)), np.asarray(time.monotonic() - began)
        )

    return run.compute("verified", Verified, compute)


def angles(
    setting: Setting, measured: Measured, predictions: ifv.Predictions, space
) -> dict[str, np.ndarray]:
    """Angular distances to the targets on the space, (samples,) each; invalid samples are 90."""
    targets = jnp.asarray(measured.targets)
    usable = jnp.asarray(measured.fv_status) == ifv.Status.OK
    distance = partial(ifv.angular_distance, space=space)
    predicted = jnp.where(usable[:, None], jnp.asarray(predictions.objective), 0)
    return {
        "predicted": np.asarray(distance(predicted, targets)),
        "response": np.asarray(distance(jnp.asarray(measured.response), targets)),
        "random": np.asarray(distance(_random(setting, measured), targets)),
    }


def to_case(
    setting: Setting,
    measured: Measured,
    predictions: ifv.Predictions,
    space: ifv.CriticalSpace | None,
    verified: Verified | None = None,
    *,
    off_kinks: bool = False,
    **notes,
) -> Case:
    """The numbers of one estimator for the report; `off_kinks` as made by `invert_off_kinks`."""
    estimator = "closed_form"
    if off_kinks:
        estimator += "_off_kinks"
        notes = {"pairs": setting.pairs, "deviation": setting.deviation, **notes}
    measured_angles = angles(setting, measured, predictions, space)
    status = np.where(
        np.asarray(measured.fv_status) != ifv.Status.OK, measured.fv_status, predictions.status
    )
    valid = status == ifv.Status.OK
    silent = np.sum(
        np.asarray(measured.targets) ** 2 * np.asarray(predictions.undetermined), axis=1
    )
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
        estimator=estimator,
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
            **notes,
        },
    )


def picture(out: Path, setting, measured, predictions, space, angles, most: int = 12) -> None:
    """A grid of the first samples; objectives are shown on the space they are compared on."""

    def shown(rows):
        return np.asarray(ifv.project(space or ifv.full_space(rows.shape[1]), rows[:most]))

    bars = {
        "target": shown(measured.targets),
        "predicted": shown(predictions.objective),
        "response": shown(measured.response),
    }
    labels = [str(i) for i in setting.features or range(measured.targets.shape[1])]
    slug = "".join(c if c.isalnum() else "_" for c in setting.name.replace(", ", "_"))
    title = f"{setting.network_name}, {setting.name}: images found, and the objectives recovered"
    images = np.asarray(measured.images[:most])
    figures.grid(out / f"{slug.lower()}.png", title, images, bars, angles, labels)


def _start_clock(run: ifv.Run) -> float:
    """Now; NaN if an earlier process began this stage and was killed, and its time is not known."""
    if run.folder is not None:
        mark = run.folder / "clock_started"
        if mark.exists():
            return float("nan")
        mark.touch()
    return time.monotonic()


def _seconds(value: Array) -> float | None:
    return None if np.isnan(value) else round(float(value), 1)


def _unit(rows: jax.Array) -> jax.Array:
    length = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return jnp.where(length > 0, rows / jnp.where(length > 0, length, 1), 0)


def _random(setting: Setting, measured: Measured) -> jax.Array:
    count, n = measured.targets.shape
    return ifv.random_targets(setting.keys["random"], count, features=n)
