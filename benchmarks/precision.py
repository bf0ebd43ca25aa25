"""What products of rounded factors do to the recovered angle: float32, TF32 and bfloat16.

    python -m benchmarks.precision [--densenet cifar10]

The demo's two layers. Feature Visualization and the Jacobian each run with the factors of all of
the network's products and convolutions rounded as a GPU's tensor cores round them, forwards and
backwards (sums and everything else stay float32); then the closed form is compared to the targets.
The rounding is done explicitly, so that the result is the same on every machine. Checkpointed under
`results/`: the same command goes on where it was stopped.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend import core

import ifv_jax as ifv
from benchmarks import demo, harness, spaces, stages, summary
from benchmarks.command_line import parse
from benchmarks.estimators import Evidence, gather, solve
from benchmarks.report import Estimate, angles
from benchmarks.setting import CLOSED_FORM, Setting
from benchmarks.start import start
from ifv_jax.engine.rewriting import rewritten

MANTISSA_BITS = {"float32": 23, "tf32": 10, "bfloat16": 7}


def rounded_products(apply: Callable[..., Any], bits: int) -> Callable[..., Any]:
    """apply(variables, images) whose products, and those of its gradient, have rounded factors."""

    def replacement(eqn: core.JaxprEqn) -> Callable[..., Any] | None:
        if eqn.primitive.name not in ("dot_general", "conv_general_dilated"):
            return None
        product = partial(eqn.primitive.bind, **eqn.params)
        return lambda *factors: product(*(lax.reduce_precision(f, 8, bits) for f in factors))

    # The gradient is rounded as a program of its own: a network may have written it by hand.
    def forward(variables, images):
        program = rewritten(lambda x: jax.vjp(partial(apply, variables), x), replacement)
        return program(images)

    def backward(pull, cotangent):
        return None, *rewritten(lambda pull, g: pull(g), replacement)(pull, cotangent)

    rounded = jax.custom_vjp(lambda variables, images: forward(variables, images)[0])
    rounded.defvjp(forward, backward)
    return rounded


def with_rounding(setting: Setting, bits: int) -> Setting:
    """The setting whose network has rounded products up to its layer."""
    apply = rounded_products(partial(setting.network.apply, upto=setting.layer), bits)
    network = setting.network._replace(
        apply=lambda variables, images, upto: apply(variables, images)
    )
    return replace(setting, network=network)


def measure(setting: Setting, work: Path) -> dict[str, dict[str, dict]]:
    """Angles in degrees: {precision of FV: {precision of J: spread over the targets}}."""
    settings = {name: with_rounding(setting, bits) for name, bits in MANTISSA_BITS.items()}
    functions = {name: one.functions() for name, one in settings.items()}
    runs = {name: one.part(ifv.Run(work / name)) for name, one in settings.items()}
    found = {
        name: stages.visualize(one, functions[name], runs[name]) for name, one in settings.items()
    }
    space = None
    if setting.critical:
        exact = "float32"
        evidence = gather(settings[exact], functions[exact], found[exact], runs[exact])
        space = spaces.find(setting, found[exact], evidence)[0].space
    measured: dict[str, dict[str, dict]] = {}
    for climbed, images in found.items():
        measured[climbed] = {}
        for name, (variables, response, _) in functions.items():
            data = ifv.linearize_all(response, variables, images.v)
            seen = Evidence(data.response, data.gram, np.asarray(np.nan))
            predictions = solve(setting, seen, space)
            estimate = Estimate(CLOSED_FORM, predictions, space, None, None, {})
            each = angles(setting, images, estimate)
            measured[climbed][name] = summary.spread(each["predicted"])
    return measured


def table(measured: dict[str, dict[str, dict]]) -> str:
    """Medians: rows are the precision of FV, columns that of J."""
    lines = [f"{'FV / J':<12}" + "".join(f"{name:>12}" for name in MANTISSA_BITS)]
    for name, row in measured.items():
        lines.append(f"{name:<12}" + "".join(f"{each['median']:>12.3f}" for each in row.values()))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = parse(
        __doc__,
        arguments,
        *("only", "samples", "adam_steps", "lbfgs_steps", "seed"),
        densenet={"default": "cifar10"},
        out={"default": Path("benchmarks/results/precision")},
        work={"default": Path("results/precision")},
    )
    start()
    cases = []
    for setting in harness.chosen(list(demo.settings(options)), options.only):
        setting = harness.changed(setting, options)
        measured = measure(setting, options.work / setting.layer)
        print(f"\n{setting.name}: median angle in degrees\n{table(measured)}", flush=True)
        about = {
            "name": setting.name,
            "network": setting.network_name,
            "samples": setting.samples,
            "seed": setting.seed,
            "adam_steps": setting.config.adam_steps,
            "lbfgs_steps": setting.config.lbfgs_steps,
        }
        cases.append(about | {"angle_deg_by_fv_and_jacobian": measured})
        summary.write(options.out, cases)


if __name__ == "__main__":
    main()
