"""SRNet: against PyTorch at every layer, its size, its taps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import srnet, weights_io

SIZE = 8


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    rng = np.random.default_rng(0)
    arrays = {}
    for name, want in weights_io.flatten(srnet.template()).items():
        scale = np.sqrt(1 / np.prod(want.shape[:-1])) if name.endswith("kernel") else 0.1
        arrays[name] = (scale * rng.standard_normal(want.shape)).astype(np.float32)
    path = tmp_path_factory.mktemp("srnet") / "weights.npz"
    weights_io.save(path, arrays, {"architecture": {"name": "SRNet"}})
    return path


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(1)
    return (
        rng.uniform(0, 1, (2, SIZE, SIZE, 5)).astype(np.float32),
        rng.uniform(-1, 1, (2, 4 * SIZE, 4 * SIZE, 6)).astype(np.float32),
    )


def torch_forward(arrays, images, previous):
    """All layers in PyTorch, from our arrays."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    F = torch.nn.functional

    def tensor(images):
        return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)

    def conv(name, x):
        kernel = torch.from_numpy(arrays[f"params/{name}/kernel"]).permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, torch.from_numpy(arrays[f"params/{name}/bias"]), padding=1)

    def up(x, factor):
        return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)

    low = tensor(images)
    low[:, 0] = 2 * low[:, 0] - 1
    if previous is None:
        folded = torch.zeros(len(images), 96, SIZE, SIZE)
    else:
        folded = F.pixel_unshuffle(tensor(previous), 4)
    taps = {"conv1": (x := F.relu(conv("conv1", torch.cat([low, folded], 1))))}
    for i in range(1, 11):
        x = taps[f"block{i}"] = x + conv(f"block{i}_conv2", F.relu(conv(f"block{i}_conv1", x)))
    for i in (1, 2):
        x = taps[f"upsample{i}"] = F.relu(conv(f"upsample{i}", up(x, 2)))
    x = taps["conv2"] = F.relu(conv("conv2", x))
    x = conv("output", x)
    taps["output"] = torch.cat([x[:, :5] + up(low, 4), x[:, 5:]], 1)
    return {name: x.permute(0, 2, 3, 1).numpy() for name, x in taps.items()}


@pytest.mark.parametrize("first", [True, False])
def test_every_layer_is_pytorchs(first, weights, frames):
    images, previous = frames
    previous = None if first else previous
    net = srnet.load(weights, size=SIZE)
    expected = torch_forward(weights_io.load_arrays(weights), images, previous)
    assert set(net.layers) == set(expected)

    @jax.jit
    def run(variables):
        return {name: net.apply(variables, images, previous, upto=name) for name in net.layers}

    for name, found in run(net.variables).items():
        scale = np.abs(expected[name]).max()
        assert np.abs(found - expected[name]).max() <= 1e-4 * scale, name


def test_it_has_as_many_parameters_as_the_published_one():
    assert sum(a.size for a in jax.tree.leaves(srnet.template())) == 911_046


def test_no_previous_frame_is_one_of_zeros(weights, frames):
    net = srnet.load(weights, size=SIZE)
    zeros = jnp.zeros((2, 4 * SIZE, 4 * SIZE, 6))
    tap = jax.jit(partial(net.apply, upto="block2"))
    np.testing.assert_allclose(
        tap(net.variables, frames[0]), tap(net.variables, frames[0], zeros), atol=1e-5
    )


def test_a_tap_computes_nothing_behind_itself(weights, frames):
    net = srnet.load(weights, size=SIZE)

    def flops(layer):
        lowered = jax.jit(partial(net.apply, upto=layer)).lower(net.variables, frames[0])
        return lowered.compile().cost_analysis()["flops"]

    assert 0 < 3 * flops("block2") < 2 * flops("block8")


def test_finished_frames_are_in_their_ranges():
    output = 3 * np.random.default_rng(2).standard_normal((2, 4, 4, 6)).astype(np.float32)
    output[0, 0, 0] = 0
    frame = np.asarray(srnet.finish(jnp.asarray(output)))
    assert np.abs(frame[..., 0]).max() <= 1
    assert frame[..., 4:].min() >= 0 and frame[..., 4:].max() <= 1
    lengths = np.linalg.norm(frame[..., 1:4], axis=-1)
    np.testing.assert_allclose(lengths.ravel()[1:], 1, atol=1e-5)
    assert lengths[0, 0, 0] == 0 and np.isfinite(frame).all()


def test_mistakes(weights, tmp_path):
    net = srnet.load(weights, size=SIZE)
    with pytest.raises(ValueError, match="block8"):
        net.apply(net.variables, jnp.zeros((1, SIZE, SIZE, 5)), upto="block11")
    with pytest.raises(ValueError, match=r"\(B, 8, 8, 5\)"):
        net.apply(net.variables, jnp.zeros((1, SIZE, SIZE, 3)))
    with pytest.raises(FileNotFoundError, match="train them"):
        srnet.load(tmp_path)
    path = tmp_path / "weights.npz"
    np.savez(path, **{"params/conv1/kernel": np.zeros((3, 3, 5, 64), np.float32)})
    with pytest.raises(ValueError, match="the array params"):
        srnet.load(path)
