"""A setting is a value that says what is measured; `harness.run` measures it."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import jax

import ifv_jax as ifv
from benchmarks import networks
from models.network import Network

CLOSED_FORM, OFF_KINKS = "closed_form", "closed_form_off_kinks"
"""Names in `estimators.ESTIMATORS`."""


@dataclass(frozen=True)
class Setting:
    """A layer, its targets, how images are optimized for them, and how targets are estimated.

    Attributes:
      name: of the case, in tables and titles.
      network_name: of its network, likewise.
      network: with its weights.
      layer: which layer is tapped.
      samples: number of targets.
      canonical: how many of them are single features.
      config: how Feature Visualization optimizes.
      features: indices into the layer's channels; None is all of them.
      targets: (samples, features) given ones, in place of sampled ones.
      start: PRNG key of the starting points, in place of the seed's.
      cosine_power: k of the objective.
      estimators: names in `estimators.ESTIMATORS`, the best last; none: images alone are wanted.
      pairs: of perturbations that look for kinks, where an estimator does so.
      deviation: of these perturbations.
      critical: whether a critical space is looked for, by Algorithm 1.
      tau_max: the largest threshold that it tries.
      never_seen: index of a class that training left out.
      aggregation: of the layer's activations.
      parametrization: of the images; sigmoid pixels of the network's shape by default.
      parametrization_name: what it is called in the report.
      reoptimized: how many samples, the first ones, are re-optimized to verify a prediction.
      reoptimization_steps: for how many steps.
      seed: of everything random.
    """

    name: str
    network_name: str
    network: Network
    layer: str
    samples: int
    canonical: int
    config: ifv.FVConfig
    features: tuple[int, ...] | None = None
    targets: jax.Array | None = None
    start: jax.Array | None = None
    cosine_power: float = 2.0
    estimators: tuple[str, ...] = (CLOSED_FORM,)
    pairs: int = 16
    deviation: float = 1.5e-4
    critical: bool = False
    tau_max: float = 0.1
    never_seen: int | None = None
    aggregation: Callable[[jax.Array], jax.Array] = ifv.max_mean
    parametrization: ifv.Parametrization | None = None
    parametrization_name: str = "sigmoid_pixels"
    reoptimized: int = 16
    reoptimization_steps: int = networks.REOPTIMIZATION_STEPS
    seed: int = 0

    @property
    def slug(self) -> str:
        """The name as one of a file."""
        return slug(self.name)

    @property
    def aggregation_name(self) -> str:
        """The name of the aggregation in the report."""
        return getattr(self.aggregation, "__name__", "unnamed")

    @property
    def keys(self) -> dict[str, jax.Array]:
        """One key for each use of randomness."""
        names = ("targets", "start", "random")
        keys = dict(zip(names, jax.random.split(jax.random.key(self.seed), 3), strict=True))
        if self.start is not None:
            keys["start"] = self.start
        return {**keys, "kinks": jax.random.fold_in(keys["random"], 1)}

    def functions(self) -> networks.Functions:
        """Response and objective; make them once."""
        return networks.functions(
            self.network,
            self.layer,
            self.parametrization or ifv.sigmoid_pixels(self.network.input_shape),
            self.aggregation,
            features=self.features,
            cosine_power=self.cosine_power,
        )

    def part(self, run: ifv.Run) -> ifv.Run:
        """The run of this very setting, with these weights: another one has another folder.

        Estimators are left out: another list of them goes on from the same images.
        """
        left_out = ("name", "network_name", "network", "estimators", "pairs", "deviation")
        values: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in (*left_out, "aggregation", "parametrization", "never_seen")
        }
        values["aggregation"] = self.aggregation_name
        return run.part("case", values | {"variables": self.network.variables})


def of_layer(
    layer: networks.Layer, network: Network, network_name: str, *, batch_size: int = 32, **changes
) -> Setting:
    """A setting of one of the paper's layers, as the paper has it but for `changes`.

    Args:
      layer: which one.
      network: its weights.
      network_name: what they are called in the report.
      batch_size: targets optimized at once.
      changes: fields of `Setting`, of which `adam_steps` and `lbfgs_steps` may be given alone.
    Returns: the setting.
    """
    steps = {
        name: changes.pop(name, getattr(layer, name)) for name in ("adam_steps", "lbfgs_steps")
    }
    values = {
        "name": layer.name,
        "layer": layer.tap,
        "samples": layer.samples,
        "canonical": layer.canonical,
        "never_seen": layer.never_seen,
        "aggregation": layer.aggregation,
        "config": ifv.FVConfig(batch_size=batch_size, **steps),
    }
    if "parametrization" not in changes:
        values["parametrization"] = layer.parametrization(network.input_shape)
    return Setting(network_name=network_name, network=network, **(values | changes))


def slug(name: str) -> str:
    """A name as one of a file: lower case, words joined by underscores."""
    return "_".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
