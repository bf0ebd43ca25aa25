"""The paper's layers (its Table 1): which network is tapped where, how, and for how many steps.

Everything that knows a layer of the paper knows it from here: the experiments, the timing of
Table 1 and the comparison with PyTorch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

import ifv_jax as ifv
from models import densenet, googlenet, srnet
from models.network import Network


class Functions(NamedTuple):
    """The functions that are computed of a layer. Make them once: they carry compiled programs."""

    variables: Any
    response: ifv.Response
    objective: ifv.Objective


class Layer(NamedTuple):
    """A layer that the paper inverts.

    `samples`, of which `canonical` are single features, are as many as two CPU cores manage; the
    paper samples 300 targets for GN4c and for DNcl (150 and 10 of them canonical), 64 for SRNet.
    """

    name: str  # the paper's
    weights: str  # option of the command line that says where they are
    load: Callable[[str], Network]  # from a path, or the name of what ships
    tap: str  # `upto` of the network
    aggregation: Callable[[jax.Array], jax.Array]
    parametrization: Callable[[tuple[int, int, int]], ifv.Parametrization]  # of the input's shape
    adam_steps: int
    lbfgs_steps: int
    samples: int
    canonical: int
    never_seen: int | None = None  # a class that training left out

    def functions(self, network: Network) -> Functions:
        """All channels of the layer, with the cosine term that the paper uses."""
        phi = self.parametrization(network.input_shape)
        return functions(network, self.tap, phi, self.aggregation)


def fixed_mask(shape: tuple[int, int, int]) -> ifv.Parametrization:
    """Geometry images that are hit everywhere."""
    return ifv.geometry_image(shape[:2], mask="fixed")


def scaled_fourier(shape: tuple[int, int, int]) -> ifv.Parametrization:
    """Images by their energy-scaled Fourier spectrum, with decorrelated colours."""
    return ifv.fourier(shape, scaled=True, decorrelate=True)


GN4C = Layer(
    name="GN4c",
    weights="googlenet",
    load=partial(googlenet.load, "bvlc"),
    tap="inception4c",
    aggregation=ifv.max_mean,
    parametrization=ifv.sigmoid_pixels,
    adam_steps=3000,
    lbfgs_steps=500,
    samples=8,
    canonical=4,
)
DNCL = Layer(
    name="DNcl",
    weights="densenet",
    load=densenet.load,
    tap="logits",
    aggregation=ifv.identity,
    parametrization=ifv.sigmoid_pixels,
    adam_steps=800,
    lbfgs_steps=300,
    samples=64,
    canonical=10,
)
DN4CL = DNCL._replace(name="DN4cl", weights="densenet4", never_seen=4)
DNDE = DNCL._replace(name="DNde", tap="dense3", aggregation=ifv.max_mean, samples=32, canonical=0)
SRNET = DNDE._replace(
    name="SRNet", weights="srnet", load=srnet.load, tap="block8", parametrization=fixed_mask
)

TABLE_1 = {layer.name: layer for layer in (GN4C, DNCL, DNDE, SRNET)}

REOPTIMIZATION_STEPS = 500
"""Adam steps by which a prediction is verified."""


def functions(
    network: Network,
    tap: str,
    parametrization: ifv.Parametrization,
    aggregation: Callable[[jax.Array], jax.Array],
    *,
    features: tuple[int, ...] | None = None,
    cosine_power: float = 2.0,
) -> Functions:
    """Response and objective of the features (indices of channels; None: all) of a layer."""
    response = ifv.make_response(
        partial(network.apply, upto=tap), parametrization, aggregation, features=features
    )
    objective = ifv.make_objective(response, cosine_power=cosine_power)
    return Functions(network.variables, response, objective)


def last_channels(network: Network, tap: str, count: int) -> tuple[int, ...]:
    """Indices of a layer's last channels: of a dense block, filters that are its own."""
    images = jax.ShapeDtypeStruct((1, *network.input_shape), np.float32)
    channels = jax.eval_shape(partial(network.apply, upto=tap), network.variables, images).shape[-1]
    return tuple(range(channels - count, channels))
