"""The DenseNet's taps, its checks, and how it behaves under JAX's transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import densenet
from models.densenet import DenseNet, layer_names, make_apply

SHAPES = {
    "conv1": (32, 32, 8),
    "dense1/layer1": (32, 32, 12),
    "dense1": (32, 32, 16),
    "trans1": (16, 16, 8),
    "dense2": (16, 16, 16),
    "trans2": (8, 8, 8),
    "dense3/layer1": (8, 8, 12),
    "dense3": (8, 8, 16),
    "head_norm": (8, 8, 16),
    "logits": (10,),
}


@pytest.fixture(scope="module")
def apply():
    return make_apply(16, 4, 10)


def flops(function, *arguments) -> float:
    analysis = jax.jit(function).lower(*arguments).compile().cost_analysis()
    assert analysis is not None
    return analysis["flops"]


def test_layers_are_listed_in_order(small_net):
    names = layer_names(small_net.depth)
    assert len(names) == len(set(names)) == 6 + 8
    assert set(SHAPES) <= set(names)
    assert [names.index(name) for name in SHAPES] == sorted(names.index(name) for name in SHAPES)
    assert len(layer_names(100)) == 48 + 8


@pytest.mark.parametrize("depth", [4, 7, 41, -2])
def test_impossible_depth(depth):
    with pytest.raises(ValueError, match=f"expected a depth of 6 n \\+ 4 .* got {depth}"):
        layer_names(depth)


def test_shapes_of_all_layers(apply, small_variables, images):
    for name in layer_names(16):
        result = jax.eval_shape(
            functools.partial(apply, upto=name), small_variables, jnp.asarray(images)
        )
        assert result.dtype == jnp.float32
        assert result.shape[0] == 3
        if name in SHAPES:
            assert result.shape[1:] == SHAPES[name]


def test_concatenation_is_input_then_new(apply, small_variables, images):
    first, last, block = (
        apply(small_variables, images, upto=name) for name in ("trans2", "dense3/layer2", "dense3")
    )
    np.testing.assert_array_equal(first, block[..., :8])
    np.testing.assert_array_equal(last, block)


def test_nothing_behind_the_tap_is_computed(apply, small_variables, images):
    """Without a compiler's help: the weights behind the tap do not even enter the program."""
    for name, unused in {"dense1": "trans1", "dense2/layer1": "dense2_layer2"}.items():
        params = dict(small_variables["params"])
        del params[unused], params["head"]
        jax.eval_shape(
            functools.partial(apply, upto=name), {**small_variables, "params": params}, images
        )
    costs = [
        flops(functools.partial(apply, upto=name), small_variables, images)
        for name in ("conv1", "dense1", "logits")
    ]
    assert costs[0] < 0.1 * costs[2]
    assert costs[1] < 0.9 * costs[2]


def test_unused_channels_are_not_computed(apply, small_variables, images):
    def part(channels, variables, images):
        return apply(variables, images, upto="dense3")[..., channels]

    everything = flops(functools.partial(apply, upto="dense3"), small_variables, images)
    before = flops(functools.partial(apply, upto="trans2"), small_variables, images)
    first = flops(functools.partial(part, slice(0, 8)), small_variables, images)
    last = flops(functools.partial(part, slice(-4, None)), small_variables, images)
    assert first <= before * 1.01
    assert before * 1.01 < last <= everything


def test_unknown_layer(apply, small_variables, images):
    with pytest.raises(ValueError, match=r"one of the layers conv1, .*, logits, got 'dense4'"):
        apply(small_variables, images, upto="dense4")


@pytest.mark.parametrize(
    ("shape", "dtype", "hint"),
    [
        ((32, 32, 3), "float32", r"add the batch axis: images\[None\]"),
        ((2, 3, 32, 32), "float32", "move the channels last"),
        ((2, 28, 28, 3), "float32", "resize them to 32 x 32"),
        ((2, 32, 32, 3), "uint8", "convert bytes"),
        ((2, 32, 32, 3), "bfloat16", "expected images of shape .* float32, .* got bfloat16"),
    ],
)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_wrong_images(apply, small_variables, shape, dtype, hint, transform):
    with pytest.raises(ValueError, match=hint):
        transform(apply)(small_variables, jnp.zeros(shape, dtype))


def test_transformations_agree(apply, small_variables, images):
    """jit, vmap of a network of batch 1, grad: all the same function."""

    def response(image, variables):
        return jnp.sum(apply(variables, image[None], upto="trans1")[0] ** 2)

    def total(images, variables):
        return jnp.sum(apply(variables, images, upto="trans1") ** 2)

    one_by_one = jax.jit(jax.vmap(jax.value_and_grad(response), (0, None)))
    values, grads = one_by_one(images, small_variables)
    value, grad = jax.jit(jax.value_and_grad(total))(images, small_variables)
    np.testing.assert_allclose(values.sum(), value, rtol=1e-5)
    np.testing.assert_allclose(grads, grad, atol=1e-5 * np.abs(grad).max())
    rows = jax.jit(jax.jacrev(lambda x: apply(small_variables, x, upto="trans1")[0, 3, 5]))(
        images[:1]
    )
    assert rows.shape == (8, 1, 32, 32, 3)


def test_images_do_not_influence_each_other(apply, small_variables, images):
    jitted = jax.jit(apply)
    whole = jitted(small_variables, images)
    alone = jitted(small_variables, images[1:2])
    np.testing.assert_allclose(alone, whole[1:2], atol=1e-5 * np.abs(whole).max())


def test_apply_is_one_function_per_architecture():
    assert make_apply(16, 4, 10) is make_apply(16, 4, 10)


def test_training_and_inference_agree(small_net, small_variables, images):
    """With the batch's own moments as running statistics, both modes give the same logits."""
    variables, moments = dict(small_variables), None
    logits, updates = small_net.apply(variables, images, train=True, mutable=["batch_stats"])
    # running = 0.9 old + 0.1 batch
    moments = jax.tree.map(
        lambda new, old: (new - densenet.MOMENTUM * old) / (1 - densenet.MOMENTUM),
        updates["batch_stats"],
        variables["batch_stats"],
    )
    inference = small_net.apply({**variables, "batch_stats": moments}, images)
    np.testing.assert_allclose(inference, logits, atol=1e-4 * np.abs(logits).max())


def test_a_new_network_starts_with_a_classifier_of_zeros():
    net = DenseNet(depth=10, growth_rate=4)
    variables = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    assert all(np.all(a == 0) for a in jax.tree.leaves(variables["params"]["head"]))
    fresh = jax.tree.leaves(variables["batch_stats"])
    assert all(np.all((a == 0) | (a == 1)) for a in fresh)
