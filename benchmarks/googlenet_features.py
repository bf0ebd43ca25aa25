"""Features of GoogLeNet's inception 4c: pictures of what they want, and their inversion.

    python -m benchmarks.googlenet_features --googlenet PATH

A dozen single features and a dozen directions, each with the energy-scaled Fourier spectrum,
decorrelated colours and jitter, and beside them with plain pixels (512 Adam steps). Then eight
directions without jitter, Adam and L-BFGS, are inverted by the closed form (512 features, 224 x
224), with residual and gap. Expect it to miss far there: many features are silent at any one image,
and the optima lie on kinks of ReLU and max pooling. Checkpointed under `results/`.
"""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp

import ifv_jax as ifv
from benchmarks import figures, harness, memory
from benchmarks.networks import GN4C, scaled_fourier
from benchmarks.setting import of_layer

SINGLE = (11, 48, 96, 147, 185, 223, 264, 307, 354, 401, 447, 495)  # spread over the branches
PICTURES = ifv.FVConfig(adam_steps=512, lbfgs_steps=0, batch_size=4, jitter=8)


def settings(options):
    """The pictures, single features and directions by both parametrizations, and the inversion."""
    network, key = GN4C.load(options.googlenet), jax.random.key(options.seed)
    layer = partial(of_layer, GN4C, network, "googlenet_bvlc", batch_size=4, seed=options.seed)
    phi = scaled_fourier(network.input_shape)
    fourier = {"parametrization": phi, "parametrization_name": "fourier, scaled, decorrelated"}
    drawn = ifv.sample_targets(key, len(SINGLE), features=512, canonical=0)
    kinds = {"features": jnp.eye(512)[jnp.asarray(SINGLE)], "directions": drawn}
    ways = {"fourier": fourier, "pixels": {}}
    picture = partial(layer, config=PICTURES, aggregation=ifv.mean, estimators=(), start=key)
    for (kind, targets), (way, made) in product(kinds.items(), ways.items()):
        yield picture(name=f"{kind} {way}", targets=targets, samples=len(targets), **made)
    yield layer(adam_steps=512, lbfgs_steps=100, reoptimized=2, **fourier)


def draw(out, records):
    """A gallery for each of the pictures, and one of the images inverted."""
    for record in records:
        name, columns, title = record.slug, 6, f"inception 4c, {record.name}"
        captions = figures.objectives(record)
        if record.recovered:
            name, columns, title = "inversions", 4, "inverted images"
            captions = figures.off_by(record, trust=True)
        path = out / f"{name}.png"
        figures.gallery(path, f"{record.network}: {title}", record.images, captions, columns)


OUT, WORK = "benchmarks/results/googlenet_features", "results/googlenet_features"
GIVEN = {"notes": memory.notes, "googlenet": {"required": True}}
main = partial(harness.main, __doc__, settings, draw, out=OUT, work=WORK, **GIVEN)

if __name__ == "__main__":
    main()
