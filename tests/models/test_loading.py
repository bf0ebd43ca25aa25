"""`densenet.load`: what it finds, and what it says of what it cannot use."""

import functools
import json

import jax
import numpy as np
import pytest

from models import densenet, googlenet, srnet, weights_io

CARD = {"architecture": {"depth": 16, "growth_rate": 4, "classes": 10}, "seed": 3}


@pytest.fixture
def folder(tmp_path, small_variables):
    weights_io.save(tmp_path / "weights.npz", small_variables, CARD)
    return tmp_path


def rewrite(folder, change):
    path = folder / "weights.npz"
    arrays = weights_io.load_arrays(path)
    change(arrays)
    np.savez(path, allow_pickle=False, **arrays)


def test_a_folder_and_its_file_load_alike(folder, small_variables):
    for path in (folder, str(folder), folder / "weights.npz"):
        net = densenet.load(path)
        jax.tree.map(np.testing.assert_array_equal, net.variables, small_variables)
        assert net.input_shape == (32, 32, 3)
        assert net.layers == densenet.layer_names(16)
        assert net.card == CARD
    assert not list(folder.glob("*.tmp"))


def test_home_and_addresses(folder, small_variables, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    net = densenet.load(f"~/{folder.name}")
    jax.tree.map(np.testing.assert_array_equal, net.variables, small_variables)
    for load in (densenet.load, srnet.load, functools.partial(googlenet.load, "bvlc")):
        with pytest.raises(ValueError, match="path on this machine"):
            load("https://example.org/weights.npz")


def test_names_that_do_not_ship():
    for name, option in (
        ("cifar10_depth100", "--depth 100"),
        ("cifar10_depth100_without_4", "--depth 100 --without-class 4"),
    ):
        command = f"python -m models.training.densenet .* {option}"
        with pytest.raises(FileNotFoundError, match=f"expected the weights of {name} .*{command}"):
            densenet.load(name)


def test_unknown_name_and_unfinished_training(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected one of cifar10, .* got 'cifar100'"):
        densenet.load("cifar100")
    with pytest.raises(FileNotFoundError, match=r"expected weights\.npz in .* finish the"):
        densenet.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        densenet.load(tmp_path / "net.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("params/conv1/kernel"), "array params/conv1/kernel of .*, got none"),
        (
            lambda a: a.update({"params/head/kernel": np.zeros((16, 9), "f4")}),
            r"array params/head/kernel of float32 \(16, 10\) in .*, got float32 \(16, 9\)",
        ),
        (
            lambda a: a["batch_stats/trans1/norm/mean"].fill(np.inf),
            "expected finite numbers in the array batch_stats/trans1/norm/mean",
        ),
        (lambda a: a.update({"params/x": np.zeros(2)}), "expected no array params/x"),
        (lambda a: a.pop("constants/std"), "array constants/std of .*, got none"),
    ],
)
def test_what_does_not_fit_is_named(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(ValueError, match=message):
        densenet.load(folder)


def test_damaged_files(folder):
    path = folder / "weights.npz"
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
    for damaged in (content[: len(content) // 2], b"", b"nothing", flipped):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"expected weights in .* cannot be read"):
            densenet.load(path)


def test_pickles_inside_are_not_opened(folder):
    path = folder / "weights.npz"
    np.savez(path, allow_pickle=True, **{"params/conv1/kernel": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match=r"expected weights in .* cannot be read"):
        densenet.load(path)


def test_cards(folder):
    card = folder / "weights.json"
    card.write_text("{ not JSON")
    with pytest.raises(ValueError, match="expected a card in JSON"):
        densenet.load(folder)
    card.write_text(json.dumps({"seed": 1}))
    with pytest.raises(ValueError, match=r"expected the architecture \(depth, growth_rate"):
        densenet.load(folder)
    card.unlink()
    with pytest.raises(ValueError, match="keep the card beside the weights"):
        densenet.load(folder)
