"""What products of rounded factors do to the recovered angle: float32, TF32 and bfloat16.

    python -m benchmarks.precision [--network cifar10] [--out FOLDER]

The demo's two layers. Feature Visualization and the Jacobian each run with the factors of all of
the network's products and convolutions rounded as a GPU's tensor cores round them, forwards and
backwards (sums and everything else stay float32); then the closed form is compared to the targets.
The rounding is done explicitly, so that the result is the same on every machine. Checkpointed under
`results/`: the same command goes on where it was stopped.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax import lax
from jax.extend import core

import ifv_jax as ifv
from benchmarks import cases, demo, experiment, report
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
        linearize = rewritten(lambda x: jax.vjp(partial(apply, variables), x), replacement)
        return linearize(images)

    def backward(pull, cotangent):
        return None, *rewritten(lambda pull, g: pull(g), replacement)(pull, cotangent)

    rounded = jax.custom_vjp(lambda variables, images: forward(variables, images)[0])
    rounded.defvjp(forward, backward)
    return rounded


def with_rounding(setting: experiment.Setting, bits: int) -> experiment.Setting:
    """The setting whose network has rounded products up to its layer."""
    apply = rounded_products(partial(setting.network.apply, upto=setting.layer), bits)
    network = setting.network._replace(
        apply=lambda variables, images, upto: apply(variables, images)
    )
    return replace(setting, network=network)


def measure(setting: experiment.Setting, work: Path) -> dict[str, dict[str, dict]]:
    """Angles in degrees: {precision of FV: {precision of J: spread over the targets}}."""
    settings = {name: with_rounding(setting, bits) for name, bits in MANTISSA_BITS.items()}
    functions = {name: experiment.make(one) for name, one in settings.items()}
    found = {
        name: experiment.measure(one, *functions[name], one.part(ifv.Run(work / name)))
        for name, one in settings.items()
    }
    space = None
    if setting.critical:
        space = cases.find_space(setting, found["float32"])[0].space
    angles: dict[str, dict[str, dict]] = {}
    for climbed, measured in found.items():
        angles[climbed] = {}
        for name, (response, _) in functions.items():
            data = ifv.linearize_all(response, setting.network.variables, measured.v)
            seen = measured._replace(response=data.response, gram=data.gram)
            predictions = experiment.predict(setting, seen, space)
            each = cases.angles(setting, seen, predictions, space)
            angles[climbed][name] = report.spread(each["predicted"])
    return angles


def table(angles: dict[str, dict[str, dict]]) -> str:
    """Medians: rows are the precision of FV, columns that of J."""
    lines = [f"{'FV / J':<12}" + "".join(f"{name:>12}" for name in MANTISSA_BITS)]
    for name, row in angles.items():
        lines.append(f"{name:<12}" + "".join(f"{each['median']:>12.3f}" for each in row.values()))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", default="cifar10", help="see densenet.load")
    parser.add_argument("--adam-steps", type=int, default=demo.CONFIG.adam_steps)
    parser.add_argument("--lbfgs-steps", type=int, default=demo.CONFIG.lbfgs_steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/precision"))
    parser.add_argument("--work", type=Path, default=Path("results/precision"))
    options = parser.parse_args(arguments)
    start()
    found = {}
    for setting in demo.settings(options.network, options.seed):
        config = replace(
            setting.config, adam_steps=options.adam_steps, lbfgs_steps=options.lbfgs_steps
        )
        setting = replace(setting, config=config)
        found[setting.name] = measure(setting, options.work / setting.layer)
        print(
            f"\n{setting.name}: median angle in degrees\n{table(found[setting.name])}", flush=True
        )
        content = {
            "angle_deg_by_fv_and_jacobian": found,
            "network": Path(options.network).stem,
            "samples": setting.samples,
            "seed": options.seed,
            "steps": {"adam": options.adam_steps, "lbfgs": options.lbfgs_steps},
        }
        report.write(options.out, content)


if __name__ == "__main__":
    main()
