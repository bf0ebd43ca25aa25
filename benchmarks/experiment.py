"""The stages of the paper's experiment for one layer: visualize, invert, verify."""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ifv_jax as ifv

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
    critical: bool = False  # a critical space is looked for, by Algorithm 1
    tau_max: float = 0.1  # the largest threshold that it tries
    aggregation_name: str = "max_mean"
    aggregation: Callable = ifv.max_mean
    parametrization_name: str = "sigmoid_pixels"
    parametrization: ifv.Parametrization | None = None  # sigmoid pixels of the network's shape
    reoptimized: int = 16  # samples, the first ones
    reoptimization_steps: int = 500
    seed: int = 0

    @property
    def slug(self) -> str:
        """The name as one of a file."""
        return "_".join("".join(c if c.isalnum() else " " for c in self.name.lower()).split())

    def part(self, run: ifv.Run) -> ifv.Run:
        """The run of this very setting, with these weights: another one has another folder."""
        left_out = ("name", "network_name", "network", "aggregation", "parametrization")
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        return run.part("case", values | {"variables": self.network.variables})

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

    began = _start_clock(run)
    # Also where all is measured: what is read back is checked against the network as it is.
    found = ifv.visualize(
        objective, variables, targets, setting.keys["start"],
        config=setting.config, run=run, progress=True,
    )  # fmt: skip
    jax.block_until_ready(found)
    middle = time.monotonic()

    def compute() -> Measured:
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
    run = run.part("off_kinks", (setting.pairs, setting.deviation, complement, measured.v))

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
        "random": random_targets(setting, measured)[first],
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


def _start_clock(run: ifv.Run) -> float:
    """Now; NaN if an earlier process began this stage and was killed, and its time is not known."""
    if run.folder is not None:
        mark = run.folder / "clock_started"
        if mark.exists():
            return float("nan")
        mark.touch()
    return time.monotonic()


def _unit(rows: jax.Array) -> jax.Array:
    length = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return jnp.where(length > 0, rows / jnp.where(length > 0, length, 1), 0)


def random_targets(setting: Setting, measured: Measured) -> jax.Array:
    """What a prediction is to beat, (samples, n)."""
    count, n = measured.targets.shape
    return ifv.random_targets(setting.keys["random"], count, features=n)
