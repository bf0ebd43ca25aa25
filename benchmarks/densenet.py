"""The paper's DenseNet experiments: the logits, and filters of dense block 3.

    python -m benchmarks.densenet --dn PATH [--dn4 NAME] [--out benchmarks/results/densenet]

PATH is the public DICE checkpoint (depth 100, see the README); it is the DN of all experiments.
DN4 is a network trained without class 4, of depth 40 until one of depth 100 is at hand. Cases:
DNcl, 54 Hoyer-uniform and 10 canonical targets; DN4cl likewise; DNde, the first and the last 12
filters of dense block 3 (342 channels, the last 192 its own), 32 targets each. k = 2, 800 Adam
and 300 L-BFGS steps. Hours on two CPU cores; everything is checkpointed under `results/`, and
the same command goes on where it was stopped. Algorithm 1 looks for a critical space in each case;
where one is found, the numbers without it are reported, too. DNde ends on kinks of ReLU and max
pooling: there the closed form is measured with and without the directions that cross them. The
bars: medians of DNcl and DN4cl on their critical spaces at most 1.5 degrees, of DNde at most 2.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

import ifv_jax as ifv
from benchmarks import cases, experiment, figures, report
from benchmarks.start import start
from models import densenet

NEVER_SEEN = 4  # DN4's class
CHANNELS = 342  # of DN's dense block 3


def settings(
    dn: str, dn4: str | None, seed: int, config: ifv.FVConfig, samples: int | None
) -> list[experiment.Setting]:
    """All cases, in the order in which they are run."""
    network = densenet.load(dn)
    logits = experiment.Setting(
        name="DNcl",
        network_name="dn",
        network=network,
        layer="logits",
        features=None,
        samples=samples or 64,
        canonical=10 if samples is None else samples // 6,
        config=config,
        critical=True,
        aggregation_name="identity",
        aggregation=ifv.identity,
        seed=seed,
    )
    first = experiment.Setting(
        name="DNde, first 12",
        network_name="dn",
        network=network,
        layer="dense3",
        features=tuple(range(12)),
        samples=samples or 32,
        canonical=0,
        config=config,
        critical=True,
        pairs=16,
        seed=seed,
    )
    last = replace(first, name="DNde, last 12", features=tuple(range(CHANNELS - 12, CHANNELS)))
    if dn4 is None:
        return [logits, first, last]
    # The axis of the class that was never seen is a weaker trivial solution: it wants a larger tau.
    unseen = replace(
        logits, name="DN4cl", network_name=Path(dn4).stem, network=densenet.load(dn4), tau_max=0.5
    )
    return [logits, unseen, first, last]


def complement_angles(space: ifv.CriticalSpace, never_seen: int | None) -> dict:
    """How the complement U lies to ones / sqrt(n) and the axis of the class that was never seen.

    The angle of a vector to a subspace is that to its projection; in degrees.
    """
    n = space.basis.shape[0]
    ones = np.ones(n) / np.sqrt(n)
    plane = ones[:, None]
    if never_seen is not None:
        plane = np.linalg.qr(np.stack([ones, np.eye(n)[never_seen]], axis=1))[0]
    inside = np.linalg.svd(plane.T @ space.complement, compute_uv=False)
    return {
        "largest_angle_to_reference_deg": round(
            float(np.degrees(np.arccos(min(1, inside.min())))), 3
        ),
        "angle_of_ones_to_U_deg": round(
            float(np.degrees(np.arccos(min(1, np.linalg.norm(space.complement.T @ ones))))), 3
        ),
        "offset": [round(float(o), 4) for o in space.offset],
    }


def describe_complement(setting: experiment.Setting, space: ifv.CriticalSpace) -> dict:
    """What U is made of: for logits beside the directions that are expected, else by its axes."""
    if not space.complement.shape[1]:
        return {}
    if setting.layer == "logits":
        never = NEVER_SEEN if setting.name.startswith("DN4") else None
        return complement_angles(space, never if space.complement.shape[1] > 1 else None)
    features = np.asarray(setting.features)
    return {
        "largest_axis_of_each_vector": [
            {"feature": int(features[np.abs(u).argmax()]), "coefficient": round(float(c), 4)}
            for u in space.complement.T
            for c in [u[np.abs(u).argmax()]]
        ],
        "offset": [round(float(o), 4) for o in space.offset],
    }


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dn", required=True, help="the DICE checkpoint, .pth.tar or .npz")
    parser.add_argument("--dn4", help="a network that never saw class 4")
    parser.add_argument("--only", nargs="*", help="names of cases to run, e.g. DNcl")
    parser.add_argument("--verify", nargs="*", help="names of cases to re-optimize; default: all")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/densenet"))
    parser.add_argument("--work", type=Path, default=Path("results/densenet"), help="checkpoints")
    parser.add_argument("--samples", type=int, help="fewer targets a case, for a first look")
    parser.add_argument("--adam-steps", type=int, default=800)
    parser.add_argument("--lbfgs-steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    start()
    options.out.mkdir(parents=True, exist_ok=True)
    found, angles = [], {}
    config = ifv.FVConfig(
        adam_steps=options.adam_steps, lbfgs_steps=options.lbfgs_steps, batch_size=32
    )
    for setting in settings(options.dn, options.dn4, options.seed, config, options.samples):
        if options.only and setting.name not in options.only:
            continue
        print(f"\n{setting.name}: {setting.samples} targets", flush=True)
        outcome = cases.run_case(
            setting,
            ifv.Run(options.work / setting.slug),
            verify=options.verify is None or setting.name in options.verify,
            describe=partial(describe_complement, setting),
        )
        found += outcome.cases
        angles[setting.name] = outcome.angles
        cases.picture(options.out, setting, outcome)
        # Written after every case, so that a run cut short has reported what it finished.
        figures.angle_plot(options.out / "angles.png", angles)
        path = report.write_cases(options.out, found)
        print(f"{report.table(found)}\nwrote {path}", flush=True)


if __name__ == "__main__":
    main()
