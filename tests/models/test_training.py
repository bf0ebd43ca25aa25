"""The training recipe: killed and resumed, its checkpoint damaged, called with other options."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from models import densenet
from models.training import densenet as recipe
from tests.models.fake_cifar10 import write_cifar10

ROOT = Path(__file__).resolve().parents[2]
# 20 steps at 16 x 16, then 20 at 32 x 32; checkpoints at 8, 16, ...
OPTIONS = ["--depth", "10", "--growth-rate", "4", "--batch-size", "16", "--peak-rate", "0.1"]
OPTIONS += ["--epochs", "2", "--small-epochs", "1", "--medium-epochs", "0", "--save-every", "8"]


def start(data: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "models.training.densenet", "--data", data, "--out", out]
    return subprocess.Popen(
        [str(part) for part in [*command, *OPTIONS]],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """`data`, `killed` (kill -9 after step 20) and `whole`, trained without interruption."""
    place = tmp_path_factory.mktemp("training")
    data = write_cifar10(place / "data", per_file=64)
    process = start(data, place / "killed")
    assert process.stdout is not None
    for line in process.stdout:
        if "step 20/40" in line:
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (place / "killed" / "weights.npz").exists()
    finish(start(data, place / "whole"))
    return place


def same_result(a: Path, b: Path) -> None:
    with np.load(a / "weights.npz") as left, np.load(b / "weights.npz") as right:
        assert set(left.files) == set(right.files)
        for name in left.files:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)
    cards = [json.loads((folder / "weights.json").read_text()) for folder in (a, b)]
    for name in ("train_loss", "train_accuracy", "test_accuracy"):
        assert cards[0][name] == cards[1][name]


def test_killed_and_resumed_is_bit_identical(place, tmp_path):
    shutil.copytree(place / "killed", tmp_path / "out")
    output = finish(start(place / "data", tmp_path / "out"))
    assert "resumed after step 16" in output
    same_result(tmp_path / "out", place / "whole")


def test_damaged_checkpoint_falls_back_to_the_one_before(place, tmp_path):
    shutil.copytree(place / "killed", tmp_path / "out")
    files = [p for p in (tmp_path / "out" / "checkpoints" / "16").rglob("*") if p.is_file()]
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    output = finish(start(place / "data", tmp_path / "out"))
    assert "checkpoint 16 cannot be read" in output
    assert "resumed after step 8" in output
    same_result(tmp_path / "out", place / "whole")


def test_result_learned_and_loads(place):
    net = densenet.load(place / "whole")
    assert net.card["architecture"] == {
        "name": "DenseNet-BC",
        "depth": 10,
        "growth_rate": 4,
        "classes": 10,
    }
    assert net.card["train_loss"][1] < 0.8 * net.card["train_loss"][0]
    assert net.card["image_size"] == [16, 32]
    assert net.card["recipe"]["seed"] == 0
    assert net.card["command"].endswith("--save-every 8")


def test_a_training_goes_on_from_finished_weights(place, tmp_path):
    arguments = ["--data", str(place / "data"), "--out", str(tmp_path / "out"), *OPTIONS]
    arguments += ["--epochs", "1", "--small-epochs", "0", "--start-from", str(place / "whole")]
    recipe.main(arguments)
    first, then = densenet.load(place / "whole").card, densenet.load(tmp_path / "out").card
    # It begins where the other ended, with a small rate.
    assert then["train_loss"][0] < first["train_loss"][0]
    assert then["started_from"] == first and then["recipe"]["start_from"] == "whole"
    with pytest.raises(ValueError, match="add --depth 10"):
        recipe.main([*arguments, "--out", str(tmp_path / "other"), "--depth", "16"])


def test_resumed_with_other_options(place):
    arguments = ["--data", str(place / "data"), "--out", str(place / "whole"), *OPTIONS]
    with pytest.raises(ValueError, match=r"expected seed = 0, with which .*, got 1; continue with"):
        recipe.main([*arguments, "--seed", "1"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "3", "--small-epochs", "4"], "expected epochs >= small epochs"),
        (["--limit", "10"], "expected at least 64 images, got 10"),
        (["--without-class", "11"], "expected a class from 0 to 9, got 11"),
        (["--depth", "41"], "expected a depth of 6 n"),
    ],
)
def test_impossible_options(place, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        recipe.main(["--data", str(place / "data"), "--out", str(tmp_path), *options])


def test_kernels_decay_and_the_rate_rises_and_falls():
    steps = 100
    options = recipe.Recipe(10, 4, 1, 0, 0, 64, 0.2, None, 0, None)
    optimizer = recipe.make_optimizer(options, steps)
    ones = {"layer": {"kernel": np.ones(2, "f4"), "bias": np.ones(2, "f4")}}
    zeros = {"layer": {"kernel": np.zeros(2, "f4"), "bias": np.zeros(2, "f4")}}

    @jax.jit
    def updates(params):
        def step(state, _):
            update, state = optimizer.update(zeros, state, params)
            return state, update

        return jax.lax.scan(step, optimizer.init(params), None, length=steps)[1]

    layer = updates(ones)["layer"]  # without gradient, only the weight decay moves anything
    np.testing.assert_array_equal(layer["bias"], 0)
    kernel = -np.asarray(layer["kernel"])[:, 0] / recipe.WEIGHT_DECAY
    # The momentum of a constant gradient tends to 10 times that gradient.
    assert kernel[0] == pytest.approx(1.9 * 0.02, rel=1e-4)
    assert 20 < kernel.argmax() < 35
    assert kernel.max() == pytest.approx(0.2 * 10, rel=0.06)
    assert kernel[-1] < 1e-3
