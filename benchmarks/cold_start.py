"""What a fresh process waits for: compiling, in units of compiling one value and gradient.

    python -m benchmarks.cold_start [--densenet PATH] [--googlenet PATH] [--only NAME ...]

For each network two fresh processes, without a compilation cache. One visualizes (25 Adam steps)
and inverts off kinks, twice: the first time less the second is spent on tracing and compiling. The
other calls one jitted value and gradient of the same objective, with the same compiler options,
twice. `over_one_compile` is the ratio. Networks whose weights are not given have random ones, which
compile alike.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import ifv_jax as ifv
from benchmarks import summary
from benchmarks.command_line import parse
from ifv_jax.engine import compiling
from models import densenet, googlenet
from models.network import Network

STEPS, PAIRS = 25, 4


def deep(depth: int, path: str | None) -> Network:
    """A DenseNet-BC of this depth."""
    if path:
        return densenet.load(path)
    module, image = densenet.DenseNet(depth), jnp.zeros((1, *densenet.INPUT_SHAPE))
    variables = module.init(jax.random.key(0), image)
    names = densenet.layer_names(depth)
    return Network(densenet.make_apply(depth, 12, 10), variables, densenet.INPUT_SHAPE, names, {})


def inception(path: str | None) -> Network:
    """Caffe's GoogLeNet."""
    if path:
        return googlenet.load("bvlc", path)
    keys = iter(jax.random.split(jax.random.key(0), 1000))
    draw: Callable[[Any], jax.Array] = lambda a: 0.05 * jax.random.normal(next(keys), a.shape)  # noqa: E731
    variables = jax.tree.map(draw, googlenet.template("bvlc"))
    size = (googlenet.SIZE, googlenet.SIZE, 3)
    return Network(googlenet.make_apply("bvlc"), variables, size, googlenet.layer_names("bvlc"), {})


CASES: dict[str, tuple[str, str | None, Callable[[str | None], Network]]] = {
    "DenseNet, depth 40": ("dense3", None, partial(deep, 40)),
    "DenseNet, depth 100": ("dense3", "densenet", partial(deep, 100)),
    "GoogLeNet": ("inception4c", "googlenet", inception),
}
"""Name: (layer, option that says where the weights are, loader)."""


def twice(function: Callable[[], Any]) -> dict[str, float]:
    """Seconds of the first and of the second call."""
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        jax.block_until_ready(function())
        seconds.append(time.perf_counter() - began)
    return {"cold": seconds[0], "warm": seconds[1]}


def library(objective: ifv.Objective, variables: Any, targets: jax.Array) -> dict[str, float]:
    """Visualizes and inverts."""
    config = ifv.FVConfig(adam_steps=STEPS, lbfgs_steps=0, batch_size=1)
    kinks = ifv.Perturbations(jax.random.key(1), pairs=PAIRS)

    def run():
        found = ifv.visualize(objective, variables, targets, jax.random.key(0), config=config)
        return ifv.invert(objective.response, variables, found.v, kinks=kinks)

    return twice(run)


def one(objective: ifv.Objective, variables: Any, targets: jax.Array) -> dict[str, float]:
    """One jitted value and gradient."""
    options = compiling.quick(jax.default_backend())
    evaluate = jax.jit(objective.value_and_grad, compiler_options=options)
    v = objective.response.parametrization.init(jax.random.key(0), 1)
    return twice(lambda: evaluate(variables, v, targets))


SIDES = {"library": library, "one": one}


def side(which: str, case: str, path: str | None) -> dict[str, float]:
    """Measures one side; in a fresh process."""
    layer, _, load = CASES[case]
    network = load(path)
    response = ifv.make_response(
        partial(network.apply, upto=layer), ifv.sigmoid_pixels(network.input_shape)
    )
    features = response.feature_count(network.variables)
    targets = ifv.sample_targets(jax.random.key(2), 1, features=features)
    return SIDES[which](ifv.make_objective(response), network.variables, targets)


def measure(case: str, path: str | None) -> dict[str, Any]:
    """Both sides of a case."""
    found = {}
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    for which in SIDES:
        command = [sys.executable, "-m", "benchmarks.cold_start", "--side", which, "--only", case]
        command += ["--path", path] if path else []
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        found[which] = json.loads(done.stdout.splitlines()[-1])
    spent = {which: seconds["cold"] - seconds["warm"] for which, seconds in found.items()}
    ratio = spent["library"] / spent["one"]
    case_of = {"name": case, "layer": CASES[case][0], "random_weights": path is None}
    return case_of | summary.rounded({"seconds": found, "over_one_compile": ratio}, 3)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    options = parse(
        __doc__,
        arguments,
        "densenet",
        "googlenet",
        "only",
        out={"type": Path, "default": Path("results/cold_start")},
        side={"choices": list(SIDES), "help": "measure one side, in this process"},
        path={"help": "of the weights, with --side"},
    )
    if options.side:
        print(json.dumps(side(options.side, options.only[0], options.path)))
        return
    cases = []
    for name in options.only or CASES:
        option = CASES[name][1]
        cases.append(measure(name, getattr(options, option) if option else None))
        print(f"{name}: {cases[-1]['over_one_compile']} times one compile", flush=True)
    print(f"wrote {summary.write(options.out, cases, steps=STEPS, pairs=PAIRS)}")


if __name__ == "__main__":
    main()
