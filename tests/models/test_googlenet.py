"""GoogLeNet: both variants against PyTorch at every layer, on photographs, and from bad files."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import convert, googlenet, googlenet_porting, porting, weights_io
from tests.models.conftest import find

VARIANTS = ("bvlc", "torchvision")
SIZE = 64  # smallest at which no pool is trivial


def random_state(variant: str, classes: int = 7, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays by the names of the variant's files, activations of the order of 1 everywhere."""
    rng = np.random.default_rng(seed)
    names = googlenet_porting.caffe_names if variant == "bvlc" else None
    names = dict((names or googlenet_porting.torchvision_names)())
    shapes = weights_io.flatten(googlenet.template(variant, classes))
    state = {}
    for old, new in names.items():
        shape = porting._foreign(new, shapes[new]).shape
        if new.endswith("kernel"):
            array = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
            if variant == "bvlc" and new == "params/conv1/conv/kernel":
                array /= 60  # its input is in units of 1 / 255
        elif new.endswith(("scale", "var")):
            array = rng.uniform(0.5, 1.5, shape)
        else:
            array = 0.3 * rng.standard_normal(shape)
        state[old] = array.astype(np.float32)
    return state


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """variant -> .npz with random weights, a head of 7 classes, and one auxiliary array."""
    folder = tmp_path_factory.mktemp("googlenet")
    auxiliary = {"bvlc": "loss1/fc/weight", "torchvision": "aux1.fc1.weight"}
    for variant in VARIANTS:
        state = random_state(variant)
        np.savez(folder / f"{variant}.npz", **state, **{auxiliary[variant]: np.ones((2, 2), "f4")})
    return {variant: folder / f"{variant}.npz" for variant in VARIANTS}


@pytest.fixture(scope="module")
def photos():
    return np.random.default_rng(1).uniform(0, 1, (2, SIZE, SIZE, 3)).astype(np.float32)


@partial(jax.jit, static_argnames=("apply", "layers"))
def every_layer(apply, layers, variables, images):
    return {name: apply(variables, images, upto=name) for name in layers}


def pytorch_layers(variant, path, images):
    """All layers in PyTorch, channels last."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from benchmarks import torch_googlenet

    reference = torch_googlenet.networks(variant, weights_io.load_arrays(path))
    with torch.no_grad():
        layers = torch_googlenet.forward(reference, torch.from_numpy(images).permute(0, 3, 1, 2))
    return {
        name: (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).numpy() for name, x in layers.items()
    }


def assert_parity(net, expected, images):
    assert set(net.layers) == set(expected)
    # All modules, and the branches of one: each tap is a network of its own to the compiler.
    layers = tuple(name for name in net.layers if "/" not in name or "inception4c" in name)
    found = every_layer(net.apply, layers, net.variables, images)
    for name, activations in found.items():
        scale = np.abs(expected[name]).max()
        assert scale > 0, name
        assert np.abs(activations - expected[name]).max() <= 1e-4 * scale, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_layer_is_pytorchs(variant, files, photos):
    net = googlenet.load(variant, files[variant], size=SIZE)
    assert_parity(net, pytorch_layers(variant, files[variant], photos), photos)


def test_bvlc_is_pytorchs_on_its_real_weights():
    path = find("googlenet") / "bvlc_googlenet.npz"
    images = photograph("chelsea")[None]
    assert_parity(googlenet.load("bvlc", path), pytorch_layers("bvlc", path, images), images)


def photograph(name: str) -> np.ndarray:
    """The middle of a photograph as (224, 224, 3) in [0, 1]."""
    image_module = pytest.importorskip("PIL.Image")
    image = image_module.open(find("photos") / f"{name}.png").convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    resized = image.resize((224, 224), image_module.Resampling.BILINEAR)
    return np.asarray(resized, np.float32) / 255


@pytest.mark.parametrize(
    ("name", "label", "probability"),
    [
        ("chelsea", "Egyptian cat", 0.45),
        ("coffee", "espresso", 0.93),
        ("camera", "tripod", 0.998),
    ],
)
def test_photographs_are_recognized(name, label, probability):
    folder = find("googlenet")
    classes = (folder / "synset_words.txt").read_text().splitlines()
    net = googlenet.load("bvlc", folder / "bvlc_googlenet.npz")
    logits = jax.jit(net.apply)(net.variables, photograph(name)[None])
    found = np.asarray(jax.nn.softmax(logits[0]))
    assert label in classes[found.argmax()]
    # The published figure depends on how the photograph was resized.
    assert abs(found.max() - probability) < 0.1


def test_a_tap_computes_nothing_behind_itself(files):
    net = googlenet.load("bvlc", files["bvlc"], size=SIZE)
    images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)

    def flops(layer):
        lowered = jax.jit(partial(net.apply, upto=layer)).lower(net.variables, images)
        return lowered.compile().cost_analysis()["flops"]

    counts = {name: flops(name) for name in ("pool2", "inception4c", "inception5b")}
    assert 0 < counts["pool2"] < counts["inception4c"] < counts["inception5b"]
    # One branch costs less than the module that it is a part of.
    assert flops("inception4c/1x1") < counts["inception4c"]


def test_layers_and_shapes(files):
    net = googlenet.load("torchvision", files["torchvision"])
    layers = ("inception4c", "inception4c/3x3", "pool4", "pool5", "logits")
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shape = jax.eval_shape(partial(every_layer, net.apply, layers), net.variables, images)
    assert shape["inception4c"].shape == (1, 14, 14, 512)
    assert shape["inception4c/3x3"].shape == (1, 14, 14, 256)
    assert shape["pool4"].shape == (1, 7, 7, 832) and shape["pool5"].shape == (1, 1024)
    assert shape["logits"].shape == (1, 7)
    assert "norm1" not in net.layers and "norm1" in googlenet.layer_names("bvlc")


@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("size", [7, 8, 9, 14, 56])
def test_pools_round_up(size, window):
    x = np.random.default_rng(2).standard_normal((1, size, size, 2)).astype(np.float32)
    found = googlenet.max_pool(jnp.asarray(x), window, 2)
    count = -(-(size - window) // 2) + 1
    naive = [
        [x[0, 2 * i : 2 * i + window, 2 * j : 2 * j + window].max((0, 1)) for j in range(count)]
        for i in range(count)
    ]
    np.testing.assert_array_equal(found[0], naive)


def test_local_response_norm_against_its_formula():
    x = np.random.default_rng(3).standard_normal((1, 2, 2, 9)).astype(np.float32) * 100
    expected = np.empty_like(x)
    for c in range(9):
        total = (x[..., max(0, c - 2) : c + 3].astype(np.float64) ** 2).sum(-1)
        expected[..., c] = x[..., c] / (1 + 1e-4 / 5 * total) ** 0.75
    np.testing.assert_allclose(googlenet.local_response_norm(jnp.asarray(x)), expected, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_converted_once_and_loaded(variant, files, tmp_path, capsys):
    folder = tmp_path / "converted"
    convert.main([variant, str(files[variant]), str(folder)])
    assert "parameters" in capsys.readouterr().out
    net = googlenet.load(variant, folder, size=SIZE)
    whole = googlenet.load(variant, files[variant], size=SIZE)
    jax.tree.map(np.testing.assert_array_equal, net.variables, whole.variables)
    assert net.card["source"] == f"{variant}.npz" and len(net.card["sha256"]) == 64
    with pytest.raises(FileExistsError, match="expected no folder"):
        convert.main([variant, str(files[variant]), str(folder)])
    other = VARIANTS[1 - VARIANTS.index(variant)]
    with pytest.raises(ValueError, match=f"expected the weights of a GoogLeNet {other}"):
        googlenet.load(other, folder)
    for file in (folder / "variables").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be read"):
        googlenet.load(variant, folder)


def test_wrong_arrays_are_named(files, tmp_path):
    state = weights_io.load_arrays(files["bvlc"])
    path = tmp_path / "state.npz"

    def load(**changes):
        np.savez(path, **{k: v for k, v in {**state, **changes}.items() if v is not None})
        googlenet.load("bvlc", path)

    name = "inception_4c/3x3_reduce/weight"
    with pytest.raises(ValueError, match=f"the array {name} of float32 .* got none"):
        load(**{name: None})
    with pytest.raises(ValueError, match=f"the array {name}.*got float32 \\(3, 3\\)"):
        load(**{name: np.zeros((3, 3), np.float32)})
    with pytest.raises(ValueError, match="no array inception_9z/weight"):
        load(**{"inception_9z/weight": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="finite"):
        load(**{name: np.full_like(state[name], np.nan)})
    path.write_bytes(files["bvlc"].read_bytes()[:100_000])
    with pytest.raises(ValueError, match="cannot be read"):
        googlenet.load("bvlc", path)
    with pytest.raises(ValueError, match="conv1/7x7_s2/weight"):  # the other variant's file
        googlenet.load("bvlc", files["torchvision"])
    with pytest.raises(FileNotFoundError):
        googlenet.load("bvlc", tmp_path / "absent.npz")


def test_mistakes(files):
    with pytest.raises(ValueError, match="expected one of the variants bvlc, torchvision"):
        googlenet.load("v3", files["bvlc"])
    with pytest.raises(ValueError, match="at least 32 pixels"):
        googlenet.load("bvlc", files["bvlc"], size=16)
    net = googlenet.load("bvlc", files["bvlc"])
    with pytest.raises(ValueError, match="inception4c"):
        net.apply(net.variables, jnp.zeros((1, 224, 224, 3)), upto="mixed4c")
    with pytest.raises(ValueError, match="resize them to 224 x 224"):
        net.apply(net.variables, jnp.zeros((1, 32, 32, 3)))
