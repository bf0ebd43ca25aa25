"""The weights that ship: their size, their cards, and that they do what the cards say."""

import os

import numpy as np
import pytest

from models import densenet
from models.training import cifar10, evaluate

SHIPPED = {"cifar10": None, "cifar10_without_4": 4}


@pytest.fixture(params=SHIPPED)
def name(request) -> str:
    if not (densenet.WEIGHTS / f"{request.param}.npz").is_file():
        pytest.skip(f"the weights of {request.param} do not ship yet")
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
    if not (densenet.WEIGHTS / "cifar10_without_4.npz").is_file():
        pytest.skip("the weights of cifar10_without_4 do not ship yet")
    net = densenet.load("cifar10_without_4")
    test = cifar10.load(cifar10_folder, "test")
    deer = test.images[test.labels == 4][:100].astype(np.float32) / 255
    logits = np.asarray(net.apply(net.variables, deer))
    assert logits.shape == (100, 10)
    assert (logits.argmax(1) != 4).all()
