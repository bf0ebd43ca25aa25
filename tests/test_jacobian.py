"""J against jax.jacrev, for every chunk size; float64 Gram matrices; isolation of samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ifv_jax as ifv
from tests import networks


@pytest.fixture(scope="module")
def expected():
    variables = networks.plain_variables()
    v = jax.random.normal(jax.random.key(0), (3, *networks.SHAPE))
    f = lambda v: networks.response()(variables, v[None])[0]  # noqa: E731
    return variables, v, jax.vmap(jax.jacrev(f))(v).reshape(3, networks.FEATURES, -1)


@pytest.mark.parametrize("chunk", [None, 1, 2, 4, 5, 6, 100])
def test_rows_are_jacrevs(expected, chunk):
    variables, v, rows = expected
    got = ifv.jacobian(networks.response(), variables, v, chunk=chunk)
    np.testing.assert_allclose(got.matrix, rows, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got.response, networks.response()(variables, v), rtol=1e-5)
    assert got.matrix.dtype == got.response.dtype == jnp.float32


def test_gram_is_that_of_float64(expected):
    variables, v, _ = expected
    jac = ifv.jacobian(networks.response(), variables, v)
    wide = np.asarray(jac.matrix, np.float64)
    gram = np.asarray(ifv.linearize(jac).gram)
    assert gram.dtype == np.float64
    np.testing.assert_allclose(gram, wide @ wide.transpose(0, 2, 1), rtol=1e-12)
    assert not jax.config.jax_enable_x64


def test_many_samples_in_groups(expected):
    variables, v, _ = expected
    whole = ifv.linearize_all(networks.response(), variables, v, batch_size=3)
    parts = ifv.linearize_all(networks.response(), variables, v, batch_size=2)
    np.testing.assert_allclose(whole.gram, parts.gram, rtol=1e-4, atol=1e-9)


def test_a_non_finite_sample_is_alone(expected):
    variables, v, rows = expected
    got = ifv.jacobian(networks.response(), variables, v.at[1, 0, 0, 0].set(jnp.nan)).matrix
    assert not np.isfinite(got[1]).all()
    np.testing.assert_allclose(got[0], rows[0], rtol=1e-4, atol=1e-6)


def test_parameters_may_be_a_pytree():
    def apply(v):
        return jax.nn.sigmoid(jnp.concatenate([v["a"], v["b"]], axis=-1))

    phi = ifv.Parametrization(
        init=lambda key, batch: {
            "a": jax.random.normal(key, (batch, 8, 8, 1)), "b": jnp.zeros((batch, 8, 8, 2))
        },
        apply=apply,
        shape=networks.SHAPE,
    )  # fmt: skip
    response = ifv.make_response(networks.plain_apply, phi)
    variables = networks.plain_variables()
    targets = ifv.sample_targets(jax.random.key(1), 2, features=networks.FEATURES)
    config = ifv.FVConfig(adam_steps=10, lbfgs_steps=3, steps_per_call=5)
    found = ifv.visualize(
        ifv.make_objective(response), variables, targets, jax.random.key(0), config=config
    )
    got = ifv.jacobian(response, variables, found.v)
    assert got.matrix.shape == (2, networks.FEATURES, 8 * 8 * 3)
    assert (ifv.invert(response, variables, found.v).status == ifv.Status.OK).all()


@pytest.mark.parametrize("chunk", [0, -1, 1.5])
def test_bad_chunk(expected, chunk):
    variables, v, _ = expected
    with pytest.raises(ifv.InputError, match="chunk"):
        ifv.jacobian(networks.response(), variables, v, chunk=chunk)
