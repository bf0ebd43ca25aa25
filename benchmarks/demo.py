"""Visualize a dozen objectives of two layers, and recover them from the images alone.

    python -m benchmarks.demo                      (make demo)
    python -m benchmarks.demo --network PATH       another DenseNet, see `models.densenet.load`

The depth-40 network takes a few minutes on two CPU cores, with fewer steps than the paper. The
closed form is measured as it is, and with the directions across kinks left out. Bar: a median
prediction within 2.5 degrees of the target on both layers, and below a quarter of the response's.
Writes results/demo/summary.json, angles.png and one grid of pictures for each layer.
"""

import argparse
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import ifv_jax as ifv
from benchmarks import cases, experiment, figures, report
from benchmarks.start import start
from models import densenet

CONFIG = ifv.FVConfig(adam_steps=1000, lbfgs_steps=300, batch_size=12)


def settings(name: str, seed: int) -> list[experiment.Setting]:
    """The two layers of the demo."""
    network = densenet.load(name)
    probe = ifv.make_response(
        partial(network.apply, upto="dense3"), ifv.sigmoid_pixels(network.input_shape)
    )
    channels = probe.feature_count(network.variables)
    filters = experiment.Setting(
        name="dense block 3, last 12 filters",
        network_name=Path(name).stem,
        network=network,
        layer="dense3",
        features=tuple(range(channels - 12, channels)),
        samples=12,
        canonical=0,
        config=CONFIG,
        pairs=16,
        reoptimized=3,
        reoptimization_steps=100,
        seed=seed,
    )
    logits = replace(
        filters,
        name="logits",
        layer="logits",
        features=None,
        canonical=2,
        critical=True,
        aggregation_name="identity",
        aggregation=ifv.identity,
    )
    return [logits, filters]


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", default="cifar10", help="a shipped network's name, or a path")
    parser.add_argument("--out", type=Path, default=Path("results/demo"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    start()
    began = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    found, angles = [], {}
    for setting in settings(options.network, options.seed):
        print(f"\n{setting.name}: {setting.samples} targets", flush=True)
        outcome = cases.run_case(setting, ifv.Run(None))
        found += outcome.cases
        angles[setting.name] = outcome.angles
        cases.picture(options.out, setting, outcome)
    figures.angle_plot(options.out / "angles.png", angles)
    path = report.write_cases(options.out, found)
    print(f"\n{report.table(found)}")
    for case in (case for case in found if case.ssim):
        parts = ", ".join(f"{who} {each['median']:.3f}" for who, each in case.ssim.items())
        print(f"similarity to itself after re-optimizing ({case.name}): {parts}")
    print(f"\n{time.monotonic() - began:.0f} s; wrote {path} and the pictures beside it")


if __name__ == "__main__":
    main()
