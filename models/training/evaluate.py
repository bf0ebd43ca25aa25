"""Measures the accuracy of a DenseNet on the CIFAR-10 test images.

    python -m models.training.evaluate cifar10 --data cifar-10-batches-py

The argument is a name or path as for `densenet.load`. `--without-class` counts only the images of
the other classes. The whole test set takes a network of depth 40 about a minute on two CPU cores.
"""

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models import densenet
from models.provenance import commit, hardware
from models.training import cifar10


@functools.partial(jax.jit, static_argnums=0)
def _predict(apply: Callable, variables: Any, images: jax.Array) -> jax.Array:
    return jnp.argmax(apply(variables, images.astype(jnp.float32) / 255), 1)


def accuracy(
    apply: Callable[..., jax.Array], variables: Any, split: cifar10.Split, batch_size: int = 250
) -> float:
    """Computes the share of images that are classified correctly.

    Args:
      apply: the network.
      variables: its weights.
      split: images and their classes.
      batch_size: number of images at a time.

    Returns:
      A number in [0, 1].
    """
    correct = 0
    for start in range(0, len(split.labels), batch_size):
        part = slice(start, start + batch_size)
        correct += np.sum(_predict(apply, variables, split.images[part]) == split.labels[part])
    return float(correct) / len(split.labels)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line.

    Args:
      arguments: the arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m models.training.evaluate", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("network", help="name or path, as for densenet.load")
    parser.add_argument("--data", type=Path, required=True, help="folder cifar-10-batches-py")
    parser.add_argument("--without-class", type=int, help="leave the images of this class out")
    parser.add_argument("--out", type=Path, help="write the result to this .json, too")
    parser.add_argument("--limit", type=int, help="use only so many images")
    options = parser.parse_args(arguments)
    net = densenet.load(options.network)
    split = cifar10.without_class(cifar10.load(options.data, "test"), options.without_class)
    split = cifar10.Split(split.images[: options.limit], split.labels[: options.limit])
    score = accuracy(net.apply, net.variables, split)
    print(f"test accuracy {score:.4f} on {len(split.labels)} images")
    if options.out:
        content = {
            "network": Path(options.network).stem,
            "test_accuracy": score,
            "images": len(split.labels),
            "without_class": options.without_class,
            "commit": commit(),
            "hardware": hardware(),
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
