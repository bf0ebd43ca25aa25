"""A reader of CIFAR-10's folder `cifar-10-batches-py`, and the augmentation of its images."""

import io
import pickle
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

TRAIN_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST_FILES = ("test_batch",)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer")  # indices 0 to 4
CLASSES += ("dog", "frog", "horse", "ship", "truck")  # 5 to 9
PADDING = 4
"""Largest shift of a training image, in pixels."""


class Split(NamedTuple):
    """Images with their classes.

    Attributes:
      images: uint8 (n, 32, 32, 3).
      labels: int32 (n,).
    """

    images: np.ndarray
    labels: np.ndarray


# A pickle may call any function. Only those that CIFAR-10's files need are allowed.
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),  # its place in NumPy 1
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),  # used by Python 3 for bytes in a protocol of Python 2
}


class _RefusedError(pickle.UnpicklingError):
    pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in _ALLOWED:
            raise _RefusedError(
                f"expected a CIFAR-10 file of numbers and bytes, got {module}.{name}; "
                "do not open this file, download the data again"
            )
        return super().find_class(module, name)


def load(folder: str | Path, split: str) -> Split:
    """Reads a split of CIFAR-10.

    Args:
      folder: the folder cifar-10-batches-py.
      split: `train` (50,000 images) or `test` (10,000 images).

    Returns:
      The images and their classes.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: there is no such split, or a file cannot be read.
    """
    files = {"train": TRAIN_FILES, "test": TEST_FILES}
    if split not in files:
        raise ValueError(f"expected the split 'train' or 'test', got {split!r}")
    folder = Path(folder)
    missing = [name for name in files[split] if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"expected the files {', '.join(files[split])} in {folder}, got no "
            f"{', '.join(missing)}; unpack cifar-10-python.tar.gz "
            "(https://www.cs.toronto.edu/~kriz/cifar.html) and give the folder cifar-10-batches-py"
        )
    parts = [_read(folder / name) for name in files[split]]
    return Split(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _read(path: Path) -> Split:
    try:
        content = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        images = np.asarray(content[b"data"], np.uint8)
        labels = np.asarray(content[b"labels"], np.int32)
        images = images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    except _RefusedError:
        raise
    except Exception as error:
        raise ValueError(
            f"expected a file of CIFAR-10's python version, got {path}, which cannot be read "
            f"({type(error).__name__}: {error}); download the data again"
        ) from error
    if len(images) != len(labels):
        raise ValueError(f"expected a label for each image, got {len(labels)} in {path}")
    return Split(np.ascontiguousarray(images), labels)


def without_class(split: Split, index: int | None) -> Split:
    """Leaves out the images of one class. The labels of the others keep their numbers.

    Args:
      split: images and their classes.
      index: number of the class; None leaves out nothing.

    Returns:
      The other images.

    Raises:
      ValueError: there is no such class.
    """
    if index is None:
        return split
    if not 0 <= index < len(CLASSES):
        raise ValueError(f"expected a class from 0 to {len(CLASSES) - 1}, got {index}")
    keep = split.labels != index
    return Split(split.images[keep], split.labels[keep])


def augment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Flips each image with probability 1/2, pads it by 4 black pixels and crops it back.

    Args:
      key: PRNG key.
      images: (B, H, W, C).

    Returns:
      (B, H, W, C).
    """
    key_flip, key_shift = jax.random.split(key)
    count, height, width, channels = images.shape
    flip = jax.random.bernoulli(key_flip, 0.5, (count, 1, 1, 1))
    images = jnp.where(flip, images[:, :, ::-1], images)
    shifts = jax.random.randint(key_shift, (count, 2), 0, 2 * PADDING + 1)
    edges = (PADDING, PADDING)
    padded = jnp.pad(images, ((0, 0), edges, edges, (0, 0)))

    def crop(image, shift):
        return jax.lax.dynamic_slice(image, (shift[0], shift[1], 0), (height, width, channels))

    return jax.vmap(crop)(padded, shifts)


def downsample(images: jax.Array, size: int) -> jax.Array:
    """Averages square images over areas.

    Args:
      images: (B, H, H, C).
      size: side of the result in pixels.

    Returns:
      (B, size, size, C).
    """
    full = images.shape[1]
    if size == full:
        return images
    # Row i contains the part of each old pixel that lies inside the new pixel i.
    low = np.arange(size)[:, None] * full / size
    pixel = np.arange(full)
    overlap = np.minimum(low + full / size, pixel + 1) - np.maximum(low, pixel)
    weights = jnp.asarray(np.maximum(overlap, 0) * size / full, images.dtype)
    return jnp.einsum("ih,bhwc,jw->bijc", weights, images, weights)
