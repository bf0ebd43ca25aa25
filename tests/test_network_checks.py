"""What a network and an aggregation return, for how many images, in which layout."""

import functools
from typing import NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ifv_jax as ifv
from ifv_jax.checks.samples import check_network
from tests import networks

VARIABLES = networks.plain_variables()
PHI = ifv.sigmoid_pixels(networks.SHAPE)
V = 0.1 * jax.random.normal(jax.random.key(0), (2, *networks.SHAPE))
TARGETS = jnp.eye(networks.FEATURES)[:2]


def response_of(change, aggregate=ifv.max_mean, phi=PHI):
    def apply(variables, images):
        return change(networks.plain_apply(variables, images))

    return ifv.make_response(apply, phi, aggregate)


def refused_everywhere(response, message):
    """By each way in, before anything is computed."""
    for call in (
        lambda: response.feature_count(VARIABLES),
        lambda: response(VARIABLES, V),
        lambda: jax.jit(lambda v: response(VARIABLES, v))(V),
        lambda: ifv.invert(response, VARIABLES, V),
        lambda: ifv.visualize(
            ifv.make_objective(response), VARIABLES, TARGETS, jax.random.key(0)
        ),
    ):  # fmt: skip
        with pytest.raises(ifv.InputError, match=message):
            call()


class Output(NamedTuple):
    logits: jax.Array


RETURNED = {
    "a tuple": (lambda a: (a, {}), r"a tuple of 2 .*\[0\].*mutable"),
    "a list": (lambda a: [a, a], r"a list of 2 .*\[0\]"),
    "a named tuple": (lambda a: Output(a), r"a Output of 1 .*\[0\]"),
    "an empty tuple": (lambda a: (), "a tuple of 0"),
    "a dict": (lambda a: {"layer3": a}, r"keys \['layer3'\].*\[NAME\]"),
    "nothing": (lambda a: None, "None.*return"),
    "a number": (lambda a: 1.5, "1.5.*row for each image"),
    "a string": (lambda a: "logits", "logits"),
    "a module": (lambda a: np, "module"),
    "a NumPy array": (lambda a: np.zeros(a.shape, "f4"), "jax.numpy"),
    "a NumPy scalar": (lambda a: np.float32(1), "jax.numpy"),
    "complex": (lambda a: a + 1j, "complex64.*real"),
    "integers": (lambda a: jnp.argmax(a, axis=-1), "int32.*gradient"),
    "rounded": (lambda a: jnp.round(a).astype(jnp.uint8), "uint8.*gradient"),
    "booleans": (lambda a: a > 0, "bool.*gradient"),
    "a scalar": (lambda a: a.mean(), r"row for each.*shape \(\)"),
    "one row": (lambda a: a[:1], r"row for each.*\(1, 8, 8, 6\).*vmap"),
    "the batch last": (lambda a: a.transpose(1, 2, 3, 0), r"row for each.*\(8, 8, 6, 2\)"),
    "the batch squeezed away": (lambda a: a.mean(0), "row for each"),
}


@pytest.mark.parametrize("case", RETURNED)
def test_what_is_no_activations_is_named(case):
    change, message = RETURNED[case]
    refused_everywhere(response_of(change), message)


AGGREGATED = {
    "a tuple": (lambda a: (a.mean((1, 2)), 0), "a response from the aggregation.*tuple of 2"),
    "nothing": (lambda a: None, "None"),
    "integers": (lambda a: a.mean((1, 2)).astype(int), "int32"),
    "three axes": (lambda a: a.mean(1), r"after aggregation.*\(2, 8, 6\)"),
    "a scalar": (lambda a: a.mean(), r"after aggregation.*shape \(\)"),
    "no feature": (lambda a: a.mean((1, 2))[:, :0], r"after aggregation.*\(2, 0\)"),
    "one that fails": (lambda a: a.mean(7), r"aggregation of activations of shape.*IndexError"),
    "of one sample": (lambda a: a.mean((0, 1))[None], r"after aggregation.*\(1, 8, 6\)"),
}


@pytest.mark.parametrize("case", AGGREGATED)
def test_what_is_no_response_is_named(case):
    aggregate, message = AGGREGATED[case]
    with pytest.raises(ifv.InputError, match=message):
        response_of(lambda a: a, aggregate).feature_count(VARIABLES)


def only_one(variables, images):
    (image,) = images
    return networks.plain_apply(variables, image[None])


def reshaped(variables, images):
    return networks.plain_apply(variables, images.reshape(1, *networks.SHAPE))


def without_batch(variables, image):
    height, width, channels = image.shape
    return networks.plain_apply(variables, image.reshape(1, height, width, channels))[0]


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (only_one, r"several images.*a single image \(ValueError: too many values.*vmap"),
        (reshaped, r"several images.*a single image \(TypeError: cannot reshape.*vmap"),
        (without_batch, r"without it \(ValueError: too many values.*jax.vmap\(apply, \(None, 0\)"),
    ],
)
def test_a_network_for_one_image_is_told_to_use_vmap(apply, message):
    response = ifv.make_response(apply, PHI)
    with pytest.raises(ifv.InputError, match=message) as caught:
        response.feature_count(VARIABLES)
    assert type(caught.value.__cause__) in (ValueError, TypeError)
    for call in (
        lambda: ifv.invert(response, VARIABLES, V[:1]),
        lambda: ifv.jacobian(response, VARIABLES, V[:1]),
        lambda: ifv.visualize(
            ifv.make_objective(response), VARIABLES, TARGETS[:1], jax.random.key(0)
        ),
    ):
        with pytest.raises(ifv.InputError, match="vmap"):
            call()


@pytest.mark.parametrize(
    ("apply", "advised"),
    [
        (only_one, lambda apply: lambda variables, images: jax.vmap(
            lambda image: apply(variables, image[None])[0])(images)),
        (without_batch, lambda apply: jax.vmap(apply, (None, 0))),
    ],
)  # fmt: skip
def test_the_advice_works(apply, advised):
    response = ifv.make_response(advised(apply), PHI)
    np.testing.assert_allclose(
        response(VARIABLES, V), networks.response()(VARIABLES, V), rtol=1e-5, atol=1e-6
    )


def in_numpy(variables, images):
    return np.tanh(np.asarray(images))


def branching(variables, images):
    return images if images.mean() > 0 else -images


def missing(variables, images):
    return images * variables["thrid"]


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (missing, "KeyError: 'thrid'.*by hand"),
        (lambda images: images, "TypeError.*by hand"),
    ],
)
def test_a_network_that_fails_says_how(apply, message):
    refused_everywhere(ifv.make_response(apply, PHI), message)


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (in_numpy, "TracerArrayConversionError.*jax.numpy"),
        (branching, "TracerBoolConversionError.*jax.numpy"),
    ],
)
def test_a_network_that_jax_cannot_trace_says_so(apply, message):
    response = ifv.make_response(apply, PHI)
    for call in (response.feature_count, lambda variables: ifv.invert(response, variables, V)):
        with pytest.raises(ifv.InputError, match=message):
            call(VARIABLES)


class Unhashable:
    def __call__(self, variables, images):
        return networks.plain_apply(variables, images)

    def __eq__(self, other):
        return True

    __hash__ = None


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (Unhashable(), "hashable.*lambda"),
        (None, "None"), ("resnet", "resnet"), (3, "3"), (VARIABLES, "dict"),
        (Unhashable, "class Unh"),
        (linen.Conv(8, (3, 3)), "module Conv.*module.apply"), (nnx.Conv, "class Conv"),
    ],
)  # fmt: skip
def test_what_is_no_network(apply, message):
    with pytest.raises(ifv.InputError, match=message):
        ifv.make_response(apply, PHI)
    with pytest.raises(ifv.InputError, match=message):
        ifv.Response(apply, PHI, ifv.mean)


def test_partials_and_objects_are_networks():
    class Hashable:
        def __call__(self, variables, images):
            return networks.plain_apply(variables, images)

    def scaled(variables, images, by):
        return by[0] * networks.plain_apply(variables, images)

    expected = networks.response()(VARIABLES, V)
    for apply in (Hashable(), functools.partial(scaled, by=[1.0]), Hashable().__call__):
        response = ifv.make_response(apply, PHI, functools.partial(ifv.max_mean, window=3))
        np.testing.assert_allclose(response(VARIABLES, V), expected, rtol=1e-5)
    corner = functools.partial(ifv.pick, position=[1, np.int64(2)])
    picked = ifv.make_response(networks.plain_apply, PHI, corner)(VARIABLES, V)
    pixels = PHI.apply(V)
    np.testing.assert_allclose(picked, networks.plain_apply(VARIABLES, pixels)[:, 1, 2], rtol=1e-4)


# --- layout ---------------------------------------------------------------------------------------

OWN = [
    ifv.max_mean, ifv.mean, ifv.pick, functools.partial(ifv.max_mean, window=2),
    functools.partial(functools.partial(ifv.pick), position=(0, 0)),
]  # fmt: skip


def channels(count, first=True, size=None):
    """A layer of so many channels, in front of the axes of space or behind them."""

    def change(a):
        a = jnp.repeat(a, -(-count // a.shape[-1]), axis=-1)[..., :count]
        if size is not None:
            a = jax.image.resize(a, (len(a), *size, count), "nearest")
        return a.transpose(0, 3, 1, 2) if first else a

    return change


@pytest.mark.parametrize("aggregate", OWN)
@pytest.mark.parametrize("count", [1, 6, 8, 20])  # 8 is the size of the map as well
def test_channels_first_is_refused(aggregate, count):
    with pytest.raises(ifv.InputError, match=r"channels last.*transpose\(0, 2, 3, 1\)"):
        check_network(response_of(channels(count), aggregate), VARIABLES)


@pytest.mark.parametrize("shape", [(6, 12, 3), (12, 6, 3), (8, 9, 3)])
def test_channels_first_is_refused_for_oblong_images(shape):
    phi = ifv.sigmoid_pixels(shape)
    v = jnp.zeros((1, *shape))
    with pytest.raises(ifv.InputError, match="channels last"):
        ifv.invert(response_of(channels(5), ifv.mean, phi), VARIABLES, v)
    assert response_of(channels(5, first=False), ifv.mean, phi)(VARIABLES, v).shape == (1, 5)


def test_channels_first_of_a_network_of_one_size():
    def dense(a):
        weights = jnp.ones((8 * 8 * 6, 7 * 4 * 4)) / 100
        return (a.reshape(len(a), -1) @ weights).reshape(len(a), 7, 4, 4)

    refused_everywhere(response_of(dense, ifv.mean), "channels last")


@pytest.mark.parametrize("aggregate", OWN)
@pytest.mark.parametrize(
    ("count", "size"),
    [(1, None), (6, None), (8, None), (20, None), (4, (8, 4)), (5, (4, 4)), (4, (4, 4)),
     (1, (1, 1)), (2, (2, 1)), (3, (7, 3)), (8, (1, 8)), (9, (9, 9))],
)  # fmt: skip
def test_channels_last_is_never_refused(aggregate, count, size):
    def fixed(a):  # a size of its own, whatever the image's
        return channels(count, first=False, size=size)(a)

    def scaled(a):  # with the image
        by = None if size is None else (size[0] * a.shape[1] // 8, size[1] * a.shape[2] // 8)
        return channels(count, first=False, size=by)(a)

    assert response_of(scaled, aggregate).feature_count(VARIABLES) == count
    assert check_network(response_of(scaled, aggregate), VARIABLES) == count
    if size is None or not (size[0] != size[1] == count):
        assert response_of(fixed, aggregate).feature_count(VARIABLES) == count


def test_an_aggregation_of_ones_own_takes_any_layout():
    response = response_of(channels(6), lambda a: a.mean((2, 3)))
    expected = response_of(channels(6, first=False), ifv.mean)(VARIABLES, V)
    np.testing.assert_allclose(response(VARIABLES, V), expected, rtol=1e-5)
    assert check_network(response, VARIABLES) == 6


@pytest.mark.parametrize("aggregate", [ifv.max_mean, ifv.mean, ifv.pick, ifv.identity])
@pytest.mark.parametrize(
    ("shape", "advice"),
    [((2, 5, 4), r"lambda a: a.mean\(1\)"), ((2, 3, 5, 5, 4), r"lambda a: a.mean\(\(1, 2, 3\)\)"),
     ((2, 3, 3, 5, 5, 4), r"a.mean\(\(1, 2, 3, 4\)\)"), ((2,), "batch axis"), ((), "batch axis")],
)  # fmt: skip
def test_tokens_and_volumes_get_advice_that_works(aggregate, shape, advice):
    with pytest.raises(ifv.InputError, match=advice) as caught:
        aggregate(jnp.ones(shape))
    found = str(caught.value)
    assert "ifv_jax.identity" not in found and "ifv_jax.max_mean" not in found
    if "lambda" in found:
        own = eval(found.split("such as `")[1].split("`")[0])
        assert own(jnp.ones(shape)).shape == (2, 4)


@pytest.mark.parametrize("option", ["window", "stride"])
@pytest.mark.parametrize("value", [0, -1, 2.5, 2.0, True, "2", None, [2]])
def test_pooling_takes_positive_integers(option, value):
    with pytest.raises(ifv.InputError, match=option):
        ifv.max_mean(jnp.ones((1, 4, 4, 2)), **{option: value})


@pytest.mark.parametrize(
    "position", [(4, 0), (0, -1), (1,), (1, 2, 3), 1, "12", (0.5, 1), (True, 0)]
)
def test_positions(position):
    with pytest.raises(ifv.InputError, match="position"):
        ifv.pick(jnp.ones((1, 4, 4, 2)), position=position)
