"""Ported DenseNets: against PyTorch at every layer, and against their published accuracy."""

import os

import jax
import numpy as np
import pytest

from models import densenet, densenet_porting
from models.training import cifar10, evaluate

DEPTH, GROWTH_RATE, CLASSES = 16, 4, 7
CHECKPOINTS = ("checkpoint_100.pth.tar", "dice_densenet_bc_100_12_cifar10.npz")


def random_state(seed: int = 0) -> dict[str, np.ndarray]:
    """A state dict by PyTorch's names, made without PyTorch."""
    rng = np.random.default_rng(seed)
    count, channels = (DEPTH - 4) // 6, 2 * GROWTH_RATE
    state = {"conv1.weight": rng.standard_normal((channels, 3, 3, 3))}

    def norm(name, size):
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{part}"] = rng.uniform(0.5, 1.5, size)
        state[f"{name}.num_batches_tracked"] = np.asarray(3)

    for block in (1, 2, 3):
        for i in range(count):
            name, inner = f"block{block}.layer.{i}", 4 * GROWTH_RATE
            norm(f"{name}.bn1", channels)
            state[f"{name}.conv1.weight"] = rng.standard_normal((inner, channels, 1, 1))
            norm(f"{name}.bn2", inner)
            state[f"{name}.conv2.weight"] = rng.standard_normal((GROWTH_RATE, inner, 3, 3))
            channels += GROWTH_RATE
        if block < 3:
            norm(f"trans{block}.bn1", channels)
            kernel = rng.standard_normal((channels // 2, channels, 1, 1))
            state[f"trans{block}.conv1.weight"] = kernel
            channels //= 2
    norm("bn1", channels)
    state["fc.weight"] = rng.standard_normal((CLASSES, channels))
    state["fc.bias"] = rng.standard_normal(CLASSES)
    return {k: v if v.dtype == np.int64 else v.astype(np.float32) for k, v in state.items()}


@pytest.fixture
def state_file(tmp_path):
    path = tmp_path / "state.npz"

    def write(state):
        np.savez(path, **state)
        return path

    return write


def test_every_layer_is_pytorchs(tmp_path, images):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from benchmarks.torch_densenet import TorchDenseNet, randomize

    reference = randomize(TorchDenseNet(DEPTH, GROWTH_RATE, CLASSES), seed=0)
    path = tmp_path / "checkpoint.pth.tar"
    torch.save({"epoch": 3, "state_dict": reference.state_dict()}, path)
    net = densenet.load(path)
    assert net.card["architecture"] == {"depth": 16, "growth_rate": 4, "classes": 7}
    mean, std = (
        np.asarray(x, np.float32) for x in (densenet_porting.DICE_MEAN, densenet_porting.DICE_STD)
    )
    normalized = (images - mean) / std
    with torch.no_grad():
        expected = reference(torch.from_numpy(normalized.transpose(0, 3, 1, 2)))
    assert tuple(expected) == net.layers

    @jax.jit
    def all_layers(variables, images):
        return {name: net.apply(variables, images, upto=name) for name in net.layers}

    for name, got in all_layers(net.variables, images).items():
        want = expected[name].numpy()
        want = want.transpose(0, 2, 3, 1) if want.ndim == 4 else want
        assert got.shape == want.shape, name
        assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max(), name


def test_kernels_are_transposed(state_file):
    state = random_state()
    params = densenet.load(state_file(state)).variables["params"]
    kernel = state["block2.layer.1.conv2.weight"]
    assert params["dense2_layer2"]["conv2"]["kernel"][2, 0, 5, 1] == kernel[1, 5, 2, 0]
    assert params["trans1"]["conv"]["kernel"][5, 2] == state["trans1.conv1.weight"][2, 5, 0, 0]
    assert params["head"]["kernel"][3, 6] == state["fc.weight"][6, 3]


def test_names_of_a_data_parallel_module(state_file):
    state = random_state()
    path = state_file({f"module.{name}": array for name, array in state.items()})
    assert densenet.load(path).variables["params"]["head"]["bias"][1] == state["fc.bias"][1]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("block3.layer.1.bn2.running_var", None, "got none; the file is damaged"),
        ("trans2.conv1.weight", lambda a: a[..., 0], r"float32 \(8, 16, 1, 1\) in .*, got float32"),
        ("bn1.bias", lambda a: a * np.nan, "finite numbers in the array bn1.bias"),
        ("fc.bias", lambda a: a.astype(np.int32), r"float32 \(7,\) in .*, got int32 \(7,\)"),
        ("fc.weight", None, "expected the array fc.weight with 2 axes"),
        ("extra.weight", lambda a: np.zeros(2), "expected no array extra.weight"),
    ],
)
def test_what_does_not_fit_is_named(state_file, name, change, message):
    state = random_state()
    if change is None:
        del state[name]
    else:
        state[name] = change(state.get(name))
    with pytest.raises(ValueError, match=message) as error:
        densenet.load(state_file(state))
    assert name in str(error.value)


def test_unreadable_checkpoints(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    for content in (b"", b"no checkpoint at all", b"PK\x03\x04 a broken archive"):
        path = tmp_path / "broken.pth"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"expected a PyTorch checkpoint .* fetch it again"):
            densenet.load(path)


@pytest.mark.parametrize("file", CHECKPOINTS)
def test_published_accuracy(dice_folder, cifar10_folder, file):
    """94.54 % on all 10,000 test images (IFV_FULL=1); 94.0 % on the first 1,000."""
    if file.endswith(".tar"):
        pytest.importorskip("torch", reason="PyTorch is not installed")
    net = densenet.load(dice_folder / file)
    count, expected = (10_000, 0.9454) if os.environ.get("IFV_FULL") else (1_000, 0.940)
    if file.endswith(".tar") and count < 10_000:  # the same arrays: the .npz is run
        other = densenet.load(dice_folder / CHECKPOINTS[1])
        jax.tree.map(np.testing.assert_array_equal, net.variables, other.variables)
        return
    test = cifar10.load(cifar10_folder, "test")
    test = cifar10.Split(test.images[:count], test.labels[:count])
    assert evaluate.accuracy(net.apply, net.variables, test) == pytest.approx(expected, abs=5e-4)
