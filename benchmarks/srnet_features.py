"""The paper's SRNet experiment: the 64 filters of residual block 8, on geometry images.

    python -m benchmarks.srnet_features [--network srnet] [--out benchmarks/results/srnet_features]

32 Hoyer-uniform targets at low resolution 32 x 32, 800 Adam and 500 L-BFGS steps, for k = 2 and
k = 0, with the mask fixed and with a continuous one. Optima lie on kinks of ReLU and of max-mean's
maximum: the closed form is reported as it is, and with the directions across kinks left out. Bars:
medians of at most 2 degrees for k = 2 and at most 5 for k = 0 (the paper recovers both).
Checkpointed under `results/`: the same command goes on where it was stopped.
"""

import argparse
from pathlib import Path

import numpy as np

import ifv_jax as ifv
from benchmarks import cases, experiment, figures, report
from benchmarks.start import start
from models import srnet

LAYER = "block8"
MASKS = ("fixed", "continuous")
PAIRS = 16  # of perturbations by which kinks are found


def settings(
    network: str, samples: int, config: ifv.FVConfig, seed: int
) -> list[experiment.Setting]:
    """One for each power and kind of mask."""
    loaded = srnet.load(network)
    return [
        experiment.Setting(
            name=f"SRNet, k = {k:g}, mask {mask}",
            network_name=Path(network).stem,
            network=loaded,
            layer=LAYER,
            features=None,
            samples=samples,
            canonical=0,
            config=config,
            cosine_power=k,
            pairs=PAIRS,
            parametrization_name=f"geometry_image, mask {mask}",
            parametrization=ifv.geometry_image(loaded.input_shape[:2], mask=mask),
            seed=seed,
        )
        for k in (2.0, 0.0)
        for mask in MASKS
    ]


def picture(path: Path, setting: experiment.Setting, outcome: cases.Outcome) -> None:
    """The normals found, as colours, with how far off prediction and response are."""
    images, angles = np.asarray(outcome.measured.images[:16]), outcome.angles
    masked = images[..., :1] * (images[..., 1:4] + 1) / 2 + (1 - images[..., :1])
    captions = [
        f"prediction {p:.1f}°\nresponse {r:.1f}°"
        for p, r in zip(angles["predicted"][:16], angles["response"][:16], strict=True)
    ]
    title = f"{setting.name}: normals found, and how far off what is recovered from them off kinks"
    figures.gallery(path, title, masked, captions, columns=8)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", default="srnet", help="`srnet`, or the folder of a training")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--adam-steps", type=int, default=800)
    parser.add_argument("--lbfgs-steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-verify", action="store_true", help="leave the re-optimization out")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/srnet_features"))
    parser.add_argument("--work", type=Path, default=Path("results/srnet_features"))
    options = parser.parse_args(arguments)
    start()
    options.out.mkdir(parents=True, exist_ok=True)
    config = ifv.FVConfig(adam_steps=options.adam_steps, lbfgs_steps=options.lbfgs_steps)
    found, angles = [], {}
    for setting in settings(options.network, options.samples, config, options.seed):
        print(f"\n{setting.name}: {setting.samples} targets", flush=True)
        run = ifv.Run(options.work / setting.slug)
        outcome = cases.run_case(setting, run, verify=not options.no_verify)
        found += outcome.cases
        angles[setting.name] = outcome.angles
        picture(options.out / f"{setting.slug}.png", setting, outcome)
        figures.angle_plot(options.out / "angles.png", angles)
        path = report.write_cases(options.out, found)
        print(f"{report.table(found)}\nwrote {path}", flush=True)


if __name__ == "__main__":
    main()
