"""Reading CIFAR-10, augmenting and shrinking its images."""

import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.network import Network
from models.training import cifar10, evaluate
from tests.models.fake_cifar10 import write_cifar10


@pytest.fixture
def folder(tmp_path):
    return write_cifar10(tmp_path / "cifar-10-batches-py", per_file=6)


def test_images_are_read_channels_last(folder):
    train, test = cifar10.load(folder, "train"), cifar10.load(str(folder), "test")
    assert train.images.shape == (30, 32, 32, 3)
    assert test.images.shape == (6, 32, 32, 3)
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int32
    with (folder / "data_batch_2").open("rb") as file:
        raw = pickle.load(file, encoding="bytes")
    row = raw[b"data"][1]  # 1,024 red, then green, then blue
    assert train.images[7, 3, 5].tolist() == row[[101, 1125, 2149]].tolist()
    assert train.labels[7] == raw[b"labels"][1]


def test_missing_files_are_named(folder):
    (folder / "data_batch_3").unlink()
    (folder / "data_batch_5").unlink()
    with pytest.raises(FileNotFoundError, match="got no data_batch_3, data_batch_5; unpack"):
        cifar10.load(folder, "train")
    with pytest.raises(ValueError, match="'train' or 'test', got 'validation'"):
        cifar10.load(folder, "validation")


class Malicious:
    def __reduce__(self):
        return print, ("this code was run",)


def test_other_pickles_are_refused(folder, capsys):
    path = folder / "test_batch"
    path.write_bytes(pickle.dumps({b"data": Malicious()}))
    with pytest.raises(pickle.UnpicklingError, match=r"got builtins\.print; do not open"):
        cifar10.load(folder, "test")
    assert capsys.readouterr().out == ""


def test_damaged_files_are_named(folder):
    path = folder / "test_batch"
    content = path.read_bytes()
    for damaged in (content[:1000], pickle.dumps({}), pickle.dumps({b"data": [1], b"labels": []})):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"got .*test_batch, which cannot be read"):
            cifar10.load(folder, "test")


def test_without_class(folder):
    split = cifar10.load(folder, "train")
    rest = cifar10.without_class(split, 4)
    assert len(rest.labels) == np.sum(split.labels != 4) < len(split.labels)
    assert 4 not in rest.labels
    assert cifar10.without_class(split, None) is split
    with pytest.raises(ValueError, match="from 0 to 9, got 10"):
        cifar10.without_class(split, 10)


def test_augmentation_flips_and_shifts():
    """Each result is a window of the padded image or of its mirror image; all windows occur."""
    rng = np.random.default_rng(0)
    images = np.repeat(rng.integers(1, 256, (1, 8, 8, 3), dtype=np.uint8), 2000, axis=0)
    results = np.asarray(jax.jit(cifar10.augment)(jax.random.key(0), images))
    assert results.dtype == np.uint8
    windows = {}
    for flip in (False, True):
        image = images[0][:, ::-1] if flip else images[0]
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
        for dy in range(9):
            for dx in range(9):
                windows[padded[dy : dy + 8, dx : dx + 8].tobytes()] = flip, dy, dx
    found = [windows[result.tobytes()] for result in results]
    assert len(set(found)) == 162
    assert 900 < sum(flip for flip, _, _ in found) < 1100
    again = jax.jit(cifar10.augment)(jax.random.key(0), images)
    np.testing.assert_array_equal(again, results)
    other = jax.jit(cifar10.augment)(jax.random.key(1), images)
    assert (np.asarray(other) != results).any()


def test_downsampling_averages_areas():
    images = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 3)), jnp.float32)
    half = images.reshape(2, 16, 2, 16, 2, 3).mean((2, 4))
    np.testing.assert_allclose(cifar10.downsample(images, 16), half, atol=1e-6)
    # 3 x 3 pixels of 24 cover 4 x 4 of 32.
    three = cifar10.downsample(images, 24).reshape(2, 8, 3, 8, 3, 3).mean((2, 4))
    np.testing.assert_allclose(three, images.reshape(2, 8, 4, 8, 4, 3).mean((2, 4)), atol=1e-6)
    np.testing.assert_allclose(cifar10.downsample(jnp.ones((1, 32, 32, 3)), 24), 1, atol=1e-6)
    assert cifar10.downsample(images, 32) is images


def test_the_evaluation_counts_and_writes(folder, tmp_path, monkeypatch, capsys):
    """A network that says 3 to everything is right on the images of class 3."""

    def says_3(variables, images):
        return jax.nn.one_hot(jnp.full(len(images), 3), 10)

    net = Network(says_3, {}, (32, 32, 3), ("logits",), {})
    monkeypatch.setattr(evaluate.densenet, "load", lambda name: net)
    labels = cifar10.load(folder, "test").labels
    out = tmp_path / "scores" / "three.json"
    evaluate.main(["weights/three.npz", "--data", str(folder), "--out", str(out)])
    written = json.loads(out.read_text())
    assert written["test_accuracy"] == np.mean(labels == 3)
    assert (written["network"], written["images"]) == ("three", len(labels))
    assert f"on {len(labels)} images" in capsys.readouterr().out
