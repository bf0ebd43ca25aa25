"""Files in the format of CIFAR-10's python version, with images that can be told apart."""

import pickle
from pathlib import Path

import numpy as np


def write_cifar10(folder: Path, per_file: int, seed: int = 0) -> Path:
    """Write the five training files and the test file; a class is a colour, with noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    colours = rng.uniform(0, 255, (10, 3, 1))
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        labels = rng.integers(0, 10, per_file)
        pixels = colours[labels] + rng.normal(0, 20, (per_file, 3, 1024))
        content = {
            b"data": np.clip(pixels, 0, 255).astype(np.uint8).reshape(per_file, -1),
            b"labels": labels.tolist(),
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return folder
