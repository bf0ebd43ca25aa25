"""Where the data lies that these tests can use, and small networks with random weights.

`IFV_DATA`: folders, separated like those of PATH, that hold `cifar-10-batches-py` and `densenet`
(the checkpoint of github deeplearning-wisc/dice). Tests that need an absent one are skipped.
"""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from models import weights_io
from models.densenet import DenseNet

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [Path(p) for p in os.environ.get("IFV_DATA", "").split(os.pathsep) if p]
FOLDERS += [ROOT / "data", ROOT.parent / "shared" / "data"]


def find(name: str) -> Path:
    for folder in FOLDERS:
        if (folder / name).is_dir():
            return folder / name
    pytest.skip(f"no {name} in {', '.join(map(str, FOLDERS))}; set IFV_DATA to a folder with it")


@pytest.fixture(scope="session")
def cifar10_folder() -> Path:
    return find("cifar-10-batches-py")


@pytest.fixture(scope="session")
def dice_folder() -> Path:
    return find("densenet")


def random_variables(net: DenseNet, seed: int = 0) -> dict:
    """Variables as after a training: nothing zero, nothing one."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 3), "f4"))
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, want in weights_io.flatten(shapes).items():
        if name.endswith(("scale", "var", "std")):
            array = rng.uniform(0.5, 1.5, want.shape)
        elif name.endswith("kernel"):
            array = rng.standard_normal(want.shape) / np.sqrt(np.prod(want.shape[:-1]) / 2)
        else:
            array = 0.3 * rng.standard_normal(want.shape)
        arrays[name] = array.astype(np.float32)
    return weights_io.fit(arrays, shapes, "random")


@pytest.fixture(scope="session")
def small_net() -> DenseNet:
    return DenseNet(depth=16, growth_rate=4, classes=10)


@pytest.fixture(scope="session")
def small_variables(small_net) -> dict:
    return random_variables(small_net)


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 1, (3, 32, 32, 3)).astype(np.float32)
