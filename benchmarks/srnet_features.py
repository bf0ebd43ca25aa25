"""The paper's SRNet experiment: the 64 filters of residual block 8, on geometry images.

    python -m benchmarks.srnet_features [--srnet srnet]

32 Hoyer-uniform targets at low resolution 32 x 32, 800 Adam and 500 L-BFGS steps (the paper: 300),
for k = 2 and k = 0, with the mask fixed and with a continuous one. Optima lie on kinks of ReLU and
of max-mean's maximum: the closed form is reported as it is, and with the directions across kinks
left out. Bars: medians of at most 2 degrees for k = 2 and at most 5 for k = 0 (the paper recovers
both). Checkpointed under `results/`: the same command goes on where it was stopped.
"""

from functools import partial
from itertools import product
from pathlib import Path

import ifv_jax as ifv
from benchmarks import figures, harness
from benchmarks.networks import SRNET
from benchmarks.setting import CLOSED_FORM, OFF_KINKS, of_layer


def settings(options):
    """One for each power and kind of mask."""
    network = SRNET.load(options.srnet)
    for k, mask in product((2.0, 0.0), ("fixed", "continuous")):
        yield of_layer(
            SRNET,
            network,
            Path(options.srnet).stem,
            name=f"SRNet, k = {k:g}, mask {mask}",
            lbfgs_steps=500,
            cosine_power=k,
            estimators=(CLOSED_FORM, OFF_KINKS),
            parametrization_name=f"geometry_image, mask {mask}",
            parametrization=ifv.geometry_image(network.input_shape[:2], mask=mask),
            seed=options.seed,
        )


def draw(out, records):
    """The angles, and for each setting the normals found, as colours."""
    figures.angle_plot(out / "angles.png", records)
    for record in records:
        title = f"{record.name}: normals found, and how far off what is recovered off kinks"
        captions = figures.off_by(record)
        figures.gallery(out / f"{record.slug}.png", title, record.images, captions, columns=8)


OUT, WORK = "benchmarks/results/srnet_features", "results/srnet_features"
main = partial(harness.main, __doc__, settings, draw, out=OUT, work=WORK, srnet={})

if __name__ == "__main__":
    main()
