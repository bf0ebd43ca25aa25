"""The weights that ship: their size, their cards, and that they do what the cards say."""

import os

import jax
import numpy as np
import pytest

from models import densenet, srnet
from models.training import cifar10, evaluate, srnet_data, srnet_scores, volumes

SHIPPED = {"cifar10": None, "cifar10_without_4": 4}


@pytest.fixture(params=SHIPPED)
def name(request) -> str:
    return request.param


def test_card(name):
    net = densenet.load(name)
    assert (densenet.WEIGHTS / f"{name}.npz").stat().st_size < 2e6
    assert net.card["architecture"]["depth"] == 40
    assert net.card["recipe"]["without_class"] == SHIPPED[name]
    assert net.card["test_images"] == (10_000 if SHIPPED[name] is None else 9_000)
    assert len(net.card["train_loss"]) == net.card["recipe"]["epochs"]
    for key in ("command", "date", "hardware", "versions", "data"):
        assert net.card[key]


def test_the_bar_for_shipped_networks(name):
    """At least 88 % on the classes seen."""
    assert densenet.load(name).card["test_accuracy"] >= 0.88


def test_accuracy(name, cifar10_folder):
    """As on the card, on all test images with IFV_FULL=1; near it on the first 1,000."""
    net = densenet.load(name)
    test = cifar10.without_class(cifar10.load(cifar10_folder, "test"), SHIPPED[name])
    if os.environ.get("IFV_FULL"):
        tolerance = 2e-4
    else:
        test, tolerance = cifar10.Split(test.images[:1000], test.labels[:1000]), 0.03
    score = evaluate.accuracy(net.apply, net.variables, test)
    assert score == pytest.approx(net.card["test_accuracy"], abs=tolerance)


def test_the_unseen_class_is_never_predicted(cifar10_folder):
    net = densenet.load("cifar10_without_4")
    test = cifar10.load(cifar10_folder, "test")
    deer = test.images[test.labels == 4][:100].astype(np.float32) / 255
    logits = np.asarray(net.apply(net.variables, deer))
    assert logits.shape == (100, 10)
    assert (logits.argmax(1) != 4).all()


# SRNet


def test_srnet_card():
    net = srnet.load()
    assert (srnet.WEIGHTS / "srnet.npz").stat().st_size < 4e6
    assert net.card["parameters"] == sum(np.size(a) for a in jax.tree.leaves(net.variables))
    assert set(net.card["test"]) == set(srnet_data.TEST_VOLUMES)
    assert not set(net.card["test"]) & set(net.card["trained_on"])
    for key in ("command", "date", "hardware", "versions", "data", "train_loss"):
        assert net.card[key]


def test_the_bar_for_srnet():
    """2 dB above bilinear upsampling in normals and in depth, and two thirds of its mask error.

    Means over the test volumes; a volume's is over its views.
    """
    gains = [found["gain"] for found in srnet.load().card["test"].values()]
    mean = {name: np.mean([gain[name] for gain in gains]) for name in gains[0]}
    assert mean["normal_psnr_db"] >= 2 and mean["depth_psnr_db"] >= 2
    assert mean["mask_error"] <= 2 / 3


def test_srnet_beats_bilinear_on_a_volume_it_never_saw(tmp_path):
    blobs = volumes.metaballs(48, seed=7)
    pairs = srnet_data.views(blobs, 2, 64, 3, tmp_path)
    ours = srnet_scores.scores(
        srnet_scores.upscale(srnet.load().variables["params"], pairs.low), pairs.high
    )
    theirs = srnet_scores.scores(srnet_scores.bilinear(pairs.low), pairs.high)
    assert (ours["normal_psnr_db"] > theirs["normal_psnr_db"] + 0.5).all()
    assert (ours["depth_psnr_db"] > theirs["depth_psnr_db"] + 2).all()
    assert (ours["mask_error"] < 0.9 * theirs["mask_error"]).all()
