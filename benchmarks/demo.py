"""Visualize a dozen objectives of two layers, and recover them from the images alone.

    python -m benchmarks.demo                      (make demo)
    python -m benchmarks.demo --densenet PATH      another DenseNet, see `models.densenet.load`

The depth-40 network takes a few minutes on two CPU cores, with fewer steps than the paper. The
closed form is measured as it is, and with the directions across kinks left out. Bar: a median
prediction within 2.5 degrees of the target on both layers, and below a quarter of the response's.
Writes results/demo/summary.json, records.npz, angles.png and one grid of pictures for each layer.
"""

from functools import partial
from pathlib import Path

from benchmarks import figures, harness
from benchmarks.networks import DNCL, DNDE, last_channels
from benchmarks.setting import CLOSED_FORM, OFF_KINKS, of_layer


def settings(options):
    """The two layers of the demo."""
    network, name = DNCL.load(options.densenet), Path(options.densenet).stem
    layer = partial(
        of_layer,
        network=network,
        network_name=name,
        samples=12,
        adam_steps=1000,
        batch_size=12,
        estimators=(CLOSED_FORM, OFF_KINKS),
        reoptimized=3,
        reoptimization_steps=100,
        seed=options.seed,
    )
    yield layer(DNCL, name="logits", canonical=2, critical=True)
    filters = last_channels(network, DNDE.tap, 12)
    yield layer(DNDE, name="dense block 3, last 12 filters", canonical=0, features=filters)


def draw(out, records):
    """The angles, and a grid for each layer."""
    figures.angle_plot(out / "angles.png", records)
    for record in records:
        figures.grid(out, record)


DENSENET = {"default": "cifar10", "help": "a shipped network's name, or a path"}
main = partial(
    harness.main, __doc__, settings, draw, out="results/demo", work=None, densenet=DENSENET
)

if __name__ == "__main__":
    main()
