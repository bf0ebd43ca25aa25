"""Features of GoogLeNet's inception 4c: pictures of what they want, and their inversion.

    python -m benchmarks.googlenet_features --weights PATH [--variant bvlc]

A dozen single features and a dozen directions, each with the energy-scaled Fourier spectrum,
decorrelated colours and jitter, and beside them with plain pixels (512 Adam steps). Then eight
directions without jitter, Adam and L-BFGS, are inverted by the closed form (512 features, 224 x
224), with residual and gap. Expect it to miss far there: many features are silent at any one image,
and the optima lie on kinks of ReLU and max pooling. Checkpointed under `results/`.
"""

import argparse
import multiprocessing
import resource
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import ifv_jax as ifv
from benchmarks import cases, experiment, figures, report
from benchmarks.start import start
from models import googlenet

LAYER = "inception4c"
FEATURES = 512
SINGLE = (11, 48, 96, 147, 185, 223, 264, 307, 354, 401, 447, 495)  # spread over the branches
JITTER = 8  # pixels


def pictures(network, phi: ifv.Parametrization, targets, steps: int, seed: int, run: ifv.Run):
    """Images (targets, 224, 224, 3) by Adam with jitter, spatial mean as the aggregation."""
    response = ifv.make_response(_tap(network), phi, ifv.mean)
    found = ifv.visualize(
        ifv.make_objective(response), network.variables, targets, jax.random.key(seed),
        config=ifv.FVConfig(adam_steps=steps, lbfgs_steps=0, batch_size=4, jitter=JITTER),
        run=run, progress=True,
    )  # fmt: skip
    images = jax.lax.map(lambda v: phi.apply(v[None])[0], jnp.asarray(found.v))
    return np.asarray(images), found


def _tap(network):
    return lambda variables, images: network.apply(variables, images, upto=LAYER)


def galleries(network, options, run: ifv.Run) -> None:
    """Pictures of single features and of directions, Fourier above pixels."""
    shape = network.input_shape
    parametrizations = {
        "fourier": ifv.fourier(shape, scaled=True, decorrelate=True),
        "pixels": ifv.sigmoid_pixels(shape),
    }
    singles = jnp.eye(FEATURES)[jnp.asarray(SINGLE[: options.pictures])]
    drawn = ifv.sample_targets(
        jax.random.key(options.seed), options.pictures, features=FEATURES, canonical=0
    )
    for kind, targets, captions in (
        ("features", singles, [f"feature {i}" for i in SINGLE]),
        ("directions", drawn, [f"sparseness {s:.2f}" for s in ifv.hoyer_sparseness(drawn)]),
    ):
        for name, phi in parametrizations.items():
            part = run.part(f"{kind}_{name}")
            images, found = pictures(network, phi, targets, options.steps, options.seed, part)
            said = [
                caption
                if status == ifv.Status.OK
                else f"{caption}, {ifv.Status(status).name.lower()}"
                for caption, status in zip(captions, np.asarray(found.status), strict=False)
            ]
            title = f"GoogLeNet {options.variant}, inception 4c, {kind}, {name}"
            path = options.out / f"{kind}_{name}.png"
            figures.gallery(path, title, images, said, columns=6)
            print(f"wrote {path}", flush=True)


def inversion(network, options) -> experiment.Setting:
    """The setting of the inversion: as the paper's GN4c, with fewer steps."""
    return experiment.Setting(
        name="GN4c",
        network_name=f"googlenet_{options.variant}",
        network=network,
        layer=LAYER,
        features=None,
        samples=options.samples,
        canonical=options.samples // 2,
        config=ifv.FVConfig(
            adam_steps=options.adam_steps, lbfgs_steps=options.lbfgs_steps, batch_size=4
        ),
        parametrization_name="fourier, scaled, decorrelated",
        parametrization=ifv.fourier(network.input_shape, scaled=True, decorrelate=True),
        reoptimized=options.reoptimized,
        seed=options.seed,
    )


def peak_memory(options) -> float:
    """GiB at most that a process of its own needs to load the network and invert one image."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_invert_one, (options.variant, options.weights, options.size))


def _invert_one(variant: str, weights: Path, size: int) -> float:
    start()
    network = googlenet.load(variant, weights, size=size)
    phi = ifv.fourier(network.input_shape, scaled=True, decorrelate=True)
    response = ifv.make_response(_tap(network), phi)
    predictions = ifv.invert(response, network.variables, phi.init(jax.random.key(0), 1))
    jax.block_until_ready(predictions)
    return round(_most_memory() / 2**30, 2)


def _most_memory() -> int:
    """Bytes that this process has held at most; on Linux getrusage would count its parent's."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", type=Path, required=True, help="see googlenet.load")
    parser.add_argument("--variant", choices=list(googlenet.VARIANTS), default="bvlc")
    parser.add_argument("--size", type=int, default=googlenet.SIZE, help="pixels")
    parser.add_argument("--pictures", type=int, default=12, help="of each kind, at most 12")
    parser.add_argument("--steps", type=int, default=512, help="Adam steps of a picture")
    parser.add_argument("--samples", type=int, default=8, help="directions inverted")
    parser.add_argument("--adam-steps", type=int, default=512, help="before the inversion")
    parser.add_argument("--lbfgs-steps", type=int, default=100)
    parser.add_argument("--reoptimized", type=int, default=2, help="samples whose SSIM is measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/googlenet_features"))
    parser.add_argument("--work", type=Path, default=Path("results/googlenet_features"))
    options = parser.parse_args(arguments)
    if not 1 <= options.pictures <= len(SINGLE):
        parser.error(f"expected --pictures from 1 to {len(SINGLE)}, got {options.pictures}")
    start()
    options.out.mkdir(parents=True, exist_ok=True)
    network = googlenet.load(options.variant, options.weights, size=options.size)
    run = ifv.Run(options.work)
    galleries(network, options, run.part("pictures"))

    setting = inversion(network, options)
    outcome = cases.run_case(setting, run.part("inversion"), verify=setting.reoptimized > 0)
    (case,) = outcome.cases
    peak = {"peak_gib_of_inverting_one_image": peak_memory(options)}
    case = replace(case, notes=case.notes | peak)
    angles, predictions = outcome.angles, outcome.predictions
    trust = zip(np.asarray(predictions.residual), np.asarray(predictions.gap), strict=True)
    captions = [
        f"prediction {p:.0f}° off, response {r:.0f}°\nresidual {residual:.1e}, gap {gap:.2f}"
        for p, r, (residual, gap) in zip(
            angles["predicted"], angles["response"], trust, strict=True
        )
    ]
    figures.gallery(
        options.out / "inversions.png", f"{setting.network_name}: inverted images",
        np.asarray(outcome.measured.images), captions, columns=4,
    )  # fmt: skip
    path = report.write_cases(options.out, [case])
    print(f"{report.table([case])}\nwrote {path}")


if __name__ == "__main__":
    main()
