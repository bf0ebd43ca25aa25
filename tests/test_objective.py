"""f and S_k composed: any pure function is a network; mistakes are named."""

from functools import partial

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ifv_jax as ifv
from tests import networks


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.Conv(8, (3, 3), name="first", use_bias=False)(x - 0.5)
        return linen.Conv(networks.FEATURES, (3, 3), name="second", use_bias=False)(jnp.tanh(x))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Conv(3, 8, (3, 3), use_bias=False, rngs=rngs)
        self.second = nnx.Conv(8, networks.FEATURES, (3, 3), use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.second(jnp.tanh(self.first(x - 0.5)))


def linen_pair(plain):
    variables = {"params": {name: {"kernel": kernel} for name, kernel in plain.items()}}
    return LinenNet().apply, variables


def nnx_pair(plain):
    net = NnxNet(nnx.Rngs(0))
    for name, kernel in plain.items():
        getattr(net, name).kernel[...] = kernel
    graph, state = nnx.split(net)
    return lambda state, x: nnx.merge(graph, state)(x), state


@pytest.mark.parametrize("pair", [linen_pair, nnx_pair])
def test_linen_nnx_and_a_plain_function_agree(pair):
    """The whole way: visualize and invert give the same with each kind of network."""
    plain = networks.plain_variables()
    apply, variables = pair(plain)
    target = ifv.sample_targets(jax.random.key(1), 2, features=networks.FEATURES)
    config = ifv.FVConfig(adam_steps=20, lbfgs_steps=5, steps_per_call=10)
    results = []
    for f, weights in ((networks.plain_apply, plain), (apply, variables)):
        response = ifv.make_response(f, ifv.sigmoid_pixels(networks.SHAPE))
        found = ifv.visualize(
            ifv.make_objective(response), weights, target, jax.random.key(2), config=config
        )
        results.append((found.v, ifv.invert(response, weights, found.v).objective))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_features_are_a_choice_in_order():
    variables, v = networks.plain_variables(), jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    full = networks.response()(variables, v)
    for chosen in ([4, 1], range(2, 5), np.asarray([3])):
        response = ifv.make_response(
            networks.plain_apply, ifv.sigmoid_pixels(networks.SHAPE), features=chosen
        )
        np.testing.assert_allclose(response(variables, v), full[:, np.asarray(list(chosen))])
        assert response.feature_count(variables) == len(list(chosen))


@pytest.mark.parametrize("chosen", [[], [1, 1], [-1], [99]])
def test_bad_features(chosen):
    with pytest.raises(ifv.InputError, match="feature"):
        ifv.make_response(
            networks.plain_apply, ifv.sigmoid_pixels(networks.SHAPE), features=chosen
        ).feature_count(networks.plain_variables())


def test_a_response_needs_a_fitting_aggregation():
    response = ifv.make_response(
        networks.plain_apply, ifv.sigmoid_pixels(networks.SHAPE), lambda a: a
    )
    with pytest.raises(ifv.InputError, match="after aggregation"):
        response.feature_count(networks.plain_variables())
    with pytest.raises(ifv.InputError, match="function"):
        ifv.make_response("resnet", ifv.sigmoid_pixels(networks.SHAPE))  # type: ignore[arg-type]


def test_the_batch_is_not_coupled():
    """A sample's gradient is the same alone and in company."""
    variables, objective = networks.plain_variables(), networks.objective()
    v = jax.random.normal(jax.random.key(0), (3, *networks.SHAPE))
    t = ifv.sample_targets(jax.random.key(1), 3, features=networks.FEATURES)
    together = objective.value_and_grad(variables, v, t)
    for i in range(3):
        alone = objective.value_and_grad(variables, v[i : i + 1], t[i : i + 1])
        np.testing.assert_allclose(alone[0][0], together[0][i], rtol=1e-5)
        np.testing.assert_allclose(alone[1][0], together[1][i], rtol=1e-4, atol=1e-7)


def test_any_callable_aggregates():
    response = ifv.make_response(
        networks.plain_apply, ifv.sigmoid_pixels(networks.SHAPE), partial(jnp.max, axis=(1, 2))
    )
    assert response.feature_count(networks.plain_variables()) == networks.FEATURES


def test_symbols_are_unique():
    names = [row.symbol for row in ifv.SYMBOLS]
    assert len(names) == len(set(names)) and all(row.equation for row in ifv.SYMBOLS)


def test_products_are_in_full_float32_unless_the_user_says_otherwise():
    response = networks.response()
    variables, v = networks.plain_variables(), jnp.zeros((1, *networks.SHAPE))

    def gradient(v):
        return jax.grad(lambda v: response(variables, v).sum())(v)

    program = str(jax.make_jaxpr(gradient)(v))
    convolutions = program.count("conv_general_dilated[")
    assert convolutions >= 4  # two, forwards and backwards
    assert program.count("Precision.HIGHEST, Precision.HIGHEST") == convolutions
    with jax.default_matmul_precision("tensorfloat32"):
        assert "HIGHEST" not in str(jax.make_jaxpr(gradient)(v))
