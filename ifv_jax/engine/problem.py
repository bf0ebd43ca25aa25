"""One job of Feature Visualization as a value: all that determines its result, and its identity."""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax.engine import fingerprints, lanes, network
from ifv_jax.engine.evaluation import Evaluation, evaluate
from ifv_jax.engine.fixed_points import Points
from ifv_jax.engine.network import Network, Shift
from ifv_jax.jitter import shifted
from ifv_jax.objective import Objective
from ifv_jax.types import PyTree

FACTORS = (1.0, 3.0, 10.0, 30.0, 60.0, 100.0, 200.0, 300.0)
"""How far out the fixed points lie, in fresh starts: grey images, then ever more contrast."""


@dataclass(frozen=True, eq=False)
class Problem:
    """max_v S_k(f(v), t) for a batch of targets.

    Attributes:
      objective, variables, targets, key, start, config: as `visualize` takes them.
      devices: lanes are spread over them.
    """

    objective: Objective
    variables: PyTree
    targets: jax.Array
    key: jax.Array
    start: PyTree | None
    config: Any
    devices: lanes.Devices

    @cached_property
    def network(self) -> Network:
        """The network that the objective looks at, with its weights."""
        return Network(self.objective.response, self.devices, self.variables)

    def shapes(self, batch: int = 1) -> PyTree:
        """v of so many lanes, as `jax.ShapeDtypeStruct`."""
        init = self.objective.response.parametrization.init
        return jax.eval_shape(lambda key: init(key, batch), jax.random.key(0))

    def identity(self) -> dict[str, Any]:
        """Values that determine the result. The program is the other half: see `program`."""
        response = self.objective.response
        return {
            "targets": self.targets,
            "key": self.key,
            "start": self.start,
            "config": self.config,
            "cosine_power": self.objective.cosine_power,
            "variables": self.variables,
            "features": response.features,
            "image": tuple(response.parametrization.shape),
            "v": self.shapes(),
        }

    def program(self) -> str:
        """The fingerprint of what is computed: starting points, responses and gradients."""
        init = self.objective.response.parametrization.init
        pixels = self.config.jitter

        def everything(variables, v, targets, key_data, taken):
            key = jax.random.wrap_key_data(key_data)
            view = shifted(pixels, key[None], taken) if pixels else None
            return init(key, 1), self.objective.look(variables, v, targets, view)

        key_data = jax.random.key_data(jax.random.key(0))
        taken = jnp.zeros(1, jnp.int32)
        return fingerprints.program(
            everything, self.variables, self.shapes(), self.targets[:1], key_data, taken
        )

    def fixed_points(self, size: int) -> Points:
        """Responses and gradients at points that depend on nothing but the program.

        Args:
          size: so many points are evaluated at once, as many as the lanes of the job.
        """
        init = self.objective.response.parametrization.init
        keys = jax.random.split(jax.random.key(0), len(FACTORS))
        # Directions of both signs, so that no feature is passed over.
        towards = np.random.default_rng(0).standard_normal((len(FACTORS), self.targets.shape[1]))
        towards /= np.linalg.norm(towards, axis=1, keepdims=True)
        found = []
        for first in range(0, len(FACTORS), size):
            chosen = np.minimum(np.arange(first, first + size), len(FACTORS) - 1)
            parts = [jax.tree.map(lambda a, i=i: FACTORS[i] * a, init(keys[i], 1)) for i in chosen]
            v = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
            targets = jnp.asarray(towards[chosen], self.targets.dtype)
            at = self.evaluate(*lanes.place((targets, v), self.devices))
            found.append((np.asarray(at.response), np.asarray(lanes.flatten(at.gradient))))
        rows = (np.concatenate(parts)[: len(FACTORS)] for parts in zip(*found, strict=True))
        return Points(*rows)

    def evaluate(self, targets: jax.Array, v: PyTree, **shift) -> Evaluation:
        """S and its gradient at v, for targets (lanes, n); `shift` as of `evaluation.evaluate`."""
        return evaluate(self.objective, self.network, targets, v, **shift)

    def respond(self, v: PyTree, size: int) -> jax.Array:
        """f at one sample (1, ...), (n,), by the program of `size` lanes."""
        many = lanes.place(lanes.take(v, np.zeros(size, int)), self.devices)
        return self.network.forward(network.some(self.devices, 0, many)).response[0]

    def group(self, indices: np.ndarray) -> "Group":
        """The lanes that are computed together: these samples."""
        keys = jax.vmap(partial(jax.random.fold_in, self.key))(jnp.asarray(indices))
        start = None if self.start is None else lanes.take(self.start, indices)
        return Group(self, lanes.place(self.targets[indices], self.devices), keys, start)


@dataclass(frozen=True, eq=False)
class Group:
    """Some samples of a problem.

    Attributes:
      problem: to which they belong.
      targets: (lanes, n), on the devices.
      keys: (lanes,) of their own.
      start: (lanes, ...) where they were told to start, or None.
    """

    problem: Problem
    targets: jax.Array
    keys: jax.Array
    start: PyTree | None

    @cached_property
    def _key_data(self) -> jax.Array:
        return lanes.place(jax.random.key_data(self.keys), self.problem.devices)

    def evaluate(self, v: PyTree, taken: jax.Array | None = None) -> Evaluation:
        """S and its gradient at v, (lanes, ...).

        Args:
          v: parameters.
          taken: steps that each lane has taken (lanes,): images are shifted, if jitter is wanted.
        """
        shift = {}
        if taken is not None:
            shift = {"shift": Shift(self._key_data, taken), "jitter": self.problem.config.jitter}
        return self.problem.evaluate(self.targets, v, **shift)
