"""The paper's DenseNet experiments: the logits, and filters of dense block 3.

    python -m benchmarks.densenet --densenet PATH [--densenet4 NAME]

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

from functools import partial
from pathlib import Path

from benchmarks import harness
from benchmarks.demo import draw
from benchmarks.networks import DN4CL, DNCL, DNDE, last_channels
from benchmarks.setting import CLOSED_FORM, OFF_KINKS, of_layer


def settings(options):
    """All cases, in the order in which they are run."""
    network, name = DNCL.load(options.densenet), "dn"
    layer = partial(of_layer, critical=True, seed=options.seed)
    yield layer(DNCL, network, name)
    if options.densenet4:
        name4 = Path(options.densenet4).stem
        # The axis of the class that was never seen is a weaker trivial solution: a larger tau.
        yield layer(DN4CL, DN4CL.load(options.densenet4), name4, tau_max=0.5)
    last = last_channels(network, DNDE.tap, 12)
    for case, features in (("first", tuple(range(12))), ("last", last)):
        yield layer(
            DNDE,
            network,
            name,
            name=f"DNde, {case} 12",
            features=features,
            estimators=(CLOSED_FORM, OFF_KINKS),
        )


main = partial(
    harness.main,
    __doc__,
    settings,
    draw,
    out="benchmarks/results/densenet",
    work="results/densenet",
    densenet={"required": True},
    densenet4={},
)

if __name__ == "__main__":
    main()
