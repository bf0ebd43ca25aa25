"""SRNet's recipe: resumed to the same bits, its loss and its scores."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from models import srnet, weights_io
from models.training import srnet as recipe
from models.training import srnet_data, srnet_scores, volumes

OPTIONS = ["--crop", "4", "--size", "32", "--views", "1", "--batch-size", "2", "--save-every", "2"]


@pytest.fixture
def small(monkeypatch):
    """One volume, and two residual blocks, which compile faster than ten."""
    monkeypatch.setattr(srnet, "BLOCKS", 2)
    monkeypatch.setattr(recipe, "TEST_VIEWS", 2)
    monkeypatch.setattr(
        srnet_data, "split", lambda found: ([volumes.metaballs(16, 4)], [volumes.metaballs(16, 4)])
    )


def test_a_training_resumes_to_the_same_bits(small, tmp_path, monkeypatch, capsys):
    recipe.main(["--out", str(tmp_path / "whole"), "--steps", "5", *OPTIONS])
    make_step, calls = recipe.make_step, []

    def stopping(optimizer):
        step = make_step(optimizer)

        def call(*args):
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return step(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "make_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            recipe.main(["--out", str(tmp_path / "cut"), "--steps", "5", *OPTIONS])
    capsys.readouterr()
    recipe.main(["--out", str(tmp_path / "cut"), "--steps", "5", *OPTIONS])
    assert "resumed after step 2" in capsys.readouterr().out
    whole, cut = (weights_io.load_arrays(tmp_path / n / "weights.npz") for n in ("whole", "cut"))
    for name in whole:
        np.testing.assert_array_equal(whole[name], cut[name])
    card = json.loads((tmp_path / "cut" / "weights.json").read_text())
    assert set(card["test"]["metaballs_0"]) == {
        "network",
        "bilinear",
        "gain",
        "standard_error",
    }
    assert card["architecture"]["blocks"] == 2 and card["recipe"]["steps"] == 5
    assert (tmp_path / "cut" / "comparison.png").stat().st_size > 1000
    srnet.load(tmp_path / "cut", size=8)
    with pytest.raises(ValueError, match="steps = 5"):
        recipe.main(["--out", str(tmp_path / "cut"), "--steps", "6", *OPTIONS])
    onwards = ["--start-from", str(tmp_path / "cut"), "--peak-rate", "1e-9"]
    recipe.main(["--out", str(tmp_path / "more"), "--steps", "1", *onwards, *OPTIONS])
    then = json.loads((tmp_path / "more" / "weights.json").read_text())
    assert then["started_from"] == card and then["recipe"]["start_from"] == "cut"
    for name, value in weights_io.load_arrays(tmp_path / "more" / "weights.npz").items():
        np.testing.assert_allclose(value, cut[name], atol=1e-8)


def truth():
    rng = np.random.default_rng(0)
    high = np.zeros((2, 8, 8, 6), np.float32)
    high[:, 2:7, 1:6, 0] = 1
    normals = rng.standard_normal((2, 8, 8, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    high[..., 1:4] = normals * high[..., :1]
    high[..., 4:] = rng.uniform(0, 1, (2, 8, 8, 2)) * high[..., :1]
    return high


def perfect(high):
    output = high.copy()
    output[..., 0] = 2 * high[..., 0] - 1
    return output


def test_the_loss_sees_the_inside_alone():
    high = truth()
    output = perfect(high)
    assert float(recipe.frame_loss(jnp.asarray(output), jnp.asarray(high))) == 0
    output[:, 0, 0, 1:] = 5  # outside
    assert float(recipe.frame_loss(jnp.asarray(output), jnp.asarray(high))) == 0
    output[:, 2:7, 1:6, 4] += 0.1  # depth, everywhere inside
    assert float(recipe.frame_loss(jnp.asarray(output), jnp.asarray(high))) == pytest.approx(
        1, 1e-5
    )


def test_scores():
    high = truth()
    output = perfect(high)
    output[..., 4] = np.clip(output[..., 4], 0.1, 0.9) + 0.01
    output[:, 2, 1:6, 0] = -1  # a fifth of the mask is missed
    found = srnet_scores.scores(output, high)
    assert found["mask_error"] == pytest.approx([0.2, 0.2])
    assert (found["normal_psnr_db"] > 100).all()
    clean = perfect(high)
    clean[..., 4] = high[..., 4] * 0.9 + 0.05
    for i, found in enumerate(srnet_scores.scores(clean, high)["depth_psnr_db"]):
        inside = high[i, ..., 0] > 0
        expected = 10 * np.log10(1 / np.mean((clean[i, ..., 4] - high[i, ..., 4])[inside] ** 2))
        assert found == pytest.approx(expected, abs=1e-3)


def test_gains_are_means_over_views(monkeypatch):
    high = truth()
    pairs = srnet_data.Pairs(high[:, 2::4, 2::4, :5].copy(), high)
    made = srnet_scores.bilinear(pairs.low)
    made[0, ..., 1:4] += 0.5 * (high[0, ..., 1:4] - made[0, ..., 1:4])
    monkeypatch.setattr(srnet_scores, "upscale", lambda params, low: made)
    found = srnet_scores.compare(None, pairs)
    ours, theirs = (srnet_scores.scores(x, high) for x in (made, srnet_scores.bilinear(pairs.low)))
    gain = (ours["normal_psnr_db"] - theirs["normal_psnr_db"])[0]
    assert gain > 1  # of the first view; the second has none
    assert found["gain"]["normal_psnr_db"] == pytest.approx(gain / 2)
    assert found["standard_error"]["normal_psnr_db"] == pytest.approx(gain / 2)
    assert found["gain"]["depth_psnr_db"] == 0 and found["gain"]["mask_error"] == 1


def test_bilinear_is_the_networks_residual():
    low = np.random.default_rng(1).uniform(0, 1, (1, 4, 4, 5)).astype(np.float32)
    params = srnet.template()["params"]
    silent = {k: {n: jnp.zeros(a.shape) for n, a in v.items()} for k, v in params.items()}
    found = srnet_scores.upscale(silent, low)
    np.testing.assert_allclose(found[..., :5], srnet_scores.bilinear(low)[..., :5], atol=1e-5)


def test_difficult_crops_are_drawn_more_often():
    """Two views, flat but for an edge in the first: only the crops on it are more than average."""
    high = np.zeros((2, 64, 64, 6), np.float32)
    high[..., 0], high[..., 3] = 1, 1
    high[0, :, 30:, 1:4] = [1, 0, 0]
    pairs = srnet_data.Pairs(high[:, 2::4, 2::4, :5].copy(), high)
    places = srnet_data.crops(pairs, 4)
    found = recipe.chances(pairs, places, 4)
    assert found.sum() == pytest.approx(1)
    edge = (places[:, 0] == 0) & (places[:, 2] <= 7) & (places[:, 2] + 4 > 7)
    assert found[edge].min() > 1 / len(places)
    np.testing.assert_allclose(found[places[:, 0] == 1], 0.5 / len(places), rtol=1e-6)


def test_weights_that_are_not_there_are_missed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(srnet_data, "views", lambda *_: pytest.fail("rendered"))
    with pytest.raises(FileNotFoundError, match="expected SRNet's weights"):
        recipe.main(["--out", str(tmp_path / "out"), "--start-from", str(tmp_path / "none")])
    assert not (tmp_path / "out").exists()


def test_options_that_do_not_fit(tmp_path, capsys):
    for wrong in (["--size", "30"], ["--crop", "16", "--size", "32"], ["--batch-size", "1"]):
        with pytest.raises(SystemExit):
            recipe.main(["--out", str(tmp_path), *wrong])
        assert "expected --size" in capsys.readouterr().err
