"""Samples that influence each other are refused; networks in inference mode pass, unevaluated."""

import functools
import gc
import logging
import weakref

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ifv_jax as ifv
from ifv_jax.checks import samples
from ifv_jax.checks.samples import check_network
from tests import networks

VARIABLES = networks.plain_variables()
PHI = ifv.sigmoid_pixels(networks.SHAPE)
V = 0.1 * jax.random.normal(jax.random.key(0), (2, *networks.SHAPE))


class Small(nnx.Module):
    """Convolution, BatchNorm, Dropout: in training mode until it is told."""

    def __init__(self, dropout=0.0):
        rngs = nnx.Rngs(0)
        self.first = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.drop = nnx.Dropout(dropout, rngs=rngs)
        self.second = nnx.Conv(8, 6, (3, 3), rngs=rngs)

    def __call__(self, x):
        return self.second(jax.nn.relu(self.drop(self.norm(self.first(x)))))


def nnx_network(evaluated, **options):
    net = Small(**options)
    if evaluated:
        net.eval()
    graph, state = nnx.split(net)
    return (lambda state, x: nnx.merge(graph, state)(x)), state


class LinenSmall(linen.Module):
    train: bool
    dropout: float = 0.0

    @linen.compact
    def __call__(self, x):
        x = linen.BatchNorm(use_running_average=not self.train)(linen.Conv(8, (3, 3))(x))
        x = linen.Dropout(self.dropout, deterministic=not self.train)(x)
        return linen.Conv(6, (3, 3))(jax.nn.relu(x))


def linen_network(train, dropout=0.0):
    module = LinenSmall(train, dropout)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = module.init(keys, jnp.zeros((1, *networks.SHAPE)))
    if not train:
        return module.apply, variables
    rngs = {"dropout": jax.random.key(2)}

    def apply(variables, x):
        return module.apply(variables, x, mutable=["batch_stats"], rngs=rngs)[0]

    return apply, variables


def changed(change):
    """The plain network with its activations changed."""
    return (lambda variables, x: change(networks.plain_apply(variables, x), x)), VARIABLES


def masked(a, x):
    return a * jax.random.bernoulli(jax.random.key(3), 0.9, a.shape)


COUNTER = iter(range(1, 10**6))

TRAINING = {
    "NNX BatchNorm": lambda: nnx_network(False),
    "NNX Dropout": lambda: nnx_network(False, dropout=0.5),
    "Linen BatchNorm": lambda: linen_network(True),
    "Linen Dropout": lambda: linen_network(True, dropout=0.3),
    "a fixed key": lambda: changed(masked),
    "centred over the batch": lambda: changed(lambda a, x: a - a.mean(axis=0)),
    "divided by the batch's largest": lambda: changed(lambda a, x: a / jnp.abs(a).max()),
    "a softmax over the batch": lambda: changed(lambda a, x: jax.nn.softmax(a, axis=0)),
    "attention over the batch": lambda: changed(
        lambda a, x: jnp.einsum("bhwc,khwc,khwd->bhwd", a, a, a)
    ),
    "the place in the batch": lambda: changed(
        lambda a, x: a + jnp.arange(len(a), dtype=a.dtype)[:, None, None, None]
    ),
    "the size of the batch": lambda: changed(lambda a, x: a * len(a)),
    "the sum over the batch in the size of one": lambda: changed(lambda a, x: a + x.sum()),
    "rolled": lambda: changed(lambda a, x: a + jnp.roll(a, 1, axis=0)),
    "reversed": lambda: changed(lambda a, x: a[::-1]),
    "sorted": lambda: changed(lambda a, x: jnp.sort(a, axis=0)),
    "summed up": lambda: changed(lambda a, x: jnp.cumsum(a, axis=0)),
    "groups across samples": lambda: changed(
        lambda a, x: a - a.reshape(2, -1).mean(axis=0).reshape(1, -1, 8, 6).mean()
    ),
    "folded into space": lambda: changed(
        lambda a, x: a + a.transpose(1, 0, 2, 3).reshape(8, -1, 6).mean(axis=1)[None, :, None]
    ),
    "noise drawn by NumPy": lambda: changed(
        lambda a, x: a + np.random.default_rng(0).normal(size=a.shape).astype("f4")
    ),
    "another number each time": lambda: changed(lambda a, x: a * next(COUNTER)),
    "the first sample": lambda: changed(lambda a, x: a * a[:1]),
}


@pytest.mark.parametrize("case", TRAINING)
def test_samples_that_influence_each_other_are_refused(case):
    apply, variables = TRAINING[case]()
    response = ifv.make_response(apply, PHI, ifv.mean)
    with pytest.raises(ifv.InputError, match=r"do not influence each other.*eval\(\)"):
        check_network(response, variables)


def test_every_job_looks(monkeypatch):
    apply, variables = TRAINING["a fixed key"]()
    response = ifv.make_response(apply, PHI, ifv.mean)
    objective = ifv.make_objective(response)
    targets = jnp.eye(networks.FEATURES)[:2]
    for call in (
        lambda: ifv.invert(response, variables, V),
        lambda: ifv.linearize_all(response, variables, V),
        lambda: ifv.jacobian(response, variables, V),
        lambda: ifv.visualize(objective, variables, targets, jax.random.key(0)),
        lambda: ifv.reoptimize(objective, variables, V, targets, window=7),
    ):
        with pytest.raises(ifv.InputError, match="influence"):
            call()


def attention(variables, x):
    """A transformer's ingredients: patches, tokens, heads, layer norm."""
    batch = x.shape[0]
    patches = x.reshape(batch, 4, 2, 4, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(batch, 16, 12)
    first = jnp.broadcast_to(jnp.ones((1, 1, 12)), (batch, 1, 12))
    tokens = jnp.concatenate([first, patches], axis=1) + jnp.linspace(0, 1, 17)[:, None]
    heads = tokens.reshape(batch, 17, 3, 4)
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", heads, heads), axis=-1)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, heads).reshape(batch * 17, 12)
    mixed = (mixed @ jnp.ones((12, 12)) / 12).reshape(batch, 17, 12)
    mixed = (mixed - mixed.mean(-1, keepdims=True)) / (mixed.std(-1, keepdims=True) + 1e-3)
    return jax.nn.gelu(mixed)[:, 0]


def one_image(variables, images):
    return jax.vmap(lambda image: networks.plain_apply(variables, image[None])[0])(images)


def by_hand(a, x):
    a = jnp.pad(a, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, 1:-1, ::2, jnp.array([3, 0, 1])]
    a = jax.lax.reduce_window(a, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return jnp.where(a > 0, a, 0.1 * jnp.fft.fft(a, axis=2).real) + jnp.sort(a, axis=1)


INFERENCE = {
    "NNX": lambda: nnx_network(True, dropout=0.5),
    "Linen": lambda: linen_network(False, dropout=0.5),
    "plain": lambda: changed(lambda a, x: a),
    "divisions": lambda: (networks.dividing_apply, VARIABLES),
    "a transformer": lambda: (lambda w, x: attention(w, x)[:, None, None], VARIABLES),
    "vmap": lambda: (one_image, VARIABLES),
    "by hand": lambda: changed(by_hand),
    "checkpoint": lambda: (jax.checkpoint(networks.relu_apply), VARIABLES),
    "jit": lambda: (jax.jit(networks.relu_apply), VARIABLES),
    "bfloat16": lambda: (
        lambda w, x: networks.plain_apply(w, x.astype(jnp.bfloat16)), VARIABLES
    ),
    "noise of one sample": lambda: changed(
        lambda a, x: a * jax.random.bernoulli(jax.random.key(0), 0.5, a.shape[1:])
    ),
    "a constant": lambda: changed(lambda a, x: jnp.ones_like(a)),
}  # fmt: skip


@pytest.mark.parametrize("case", INFERENCE)
def test_networks_in_inference_mode_are_cleared_by_their_program(case, monkeypatch):
    apply, variables = INFERENCE[case]()
    monkeypatch.setattr(samples, "_look", lambda *args: pytest.fail("it was evaluated"))
    response = ifv.make_response(apply, PHI, ifv.mean)
    assert check_network(response, variables) == response.feature_count(variables)


def looping(a, x):
    return jax.lax.fori_loop(0, 3, lambda i, a: 0.9 * a + 0.1 * jnp.tanh(a), a)


def called_back(a, x):
    shape = jax.ShapeDtypeStruct(a.shape, a.dtype)
    return jax.pure_callback(lambda a: np.asarray(a) + 1, shape, a)


def poisoned(a, x):
    return jnp.where(x[:, :1, :1, :1] > 0.6, jnp.nan, looping(a, x))


DOUBTFUL = {
    "a loop": looping,
    "a callback": called_back,
    "printing": lambda a, x: (jax.debug.callback(lambda: None), a)[1],
    "NaN": poisoned,
    "NaN everywhere": lambda a, x: looping(a, x) * jnp.nan,
    "a loop in bfloat16": lambda a, x: looping(a.astype(jnp.bfloat16), x),
}


@pytest.mark.parametrize("case", DOUBTFUL)
def test_where_the_program_does_not_tell_values_do(case):
    apply, variables = changed(DOUBTFUL[case])
    response = ifv.make_response(apply, PHI, ifv.mean)
    assert check_network(response, variables) == networks.FEATURES


def test_a_parametrization_that_mixes_samples_is_seen():
    phi = ifv.Parametrization(PHI.init, lambda v: PHI.apply(v - v.mean(axis=0)), networks.SHAPE)
    with pytest.raises(ifv.InputError, match="influence"):
        check_network(ifv.make_response(networks.plain_apply, phi), VARIABLES)


def test_a_start_that_cannot_be_traced_is_looked_at_by_value():
    def init(key, batch):
        seed = int(np.asarray(jax.random.key_data(key))[-1])
        return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, *networks.SHAPE)), "f4")

    phi = ifv.Parametrization(init, PHI.apply, networks.SHAPE)
    assert check_network(ifv.make_response(networks.plain_apply, phi), VARIABLES) == 6
    apply, variables = TRAINING["NNX BatchNorm"]()
    with pytest.raises(ifv.InputError, match="influence"):
        check_network(ifv.make_response(apply, phi), variables)


def test_it_looks_once_for_each_response_and_shape_of_weights(monkeypatch):
    traced = []

    def apply(variables, images):
        traced.append(images.shape)
        return networks.plain_apply(variables, images)

    response = ifv.make_response(apply, PHI)
    check_network(response, VARIABLES)
    often = len(traced)
    for _ in range(3):
        check_network(response, jax.tree.map(lambda a: 2 * a, VARIABLES))
    assert len(traced) == often
    check_network(response, jax.tree.map(lambda a: a.astype(jnp.bfloat16), VARIABLES))
    assert len(traced) > often


def test_it_keeps_nothing_alive():
    weights = np.zeros((3, 3, 3, 4), np.float32)

    def apply(weights, variables, images):
        return jax.lax.conv_general_dilated(
            images, jnp.asarray(weights), (1, 1), "SAME", dimension_numbers=networks.DIMENSIONS
        )

    response = ifv.make_response(functools.partial(apply, weights), PHI, ifv.mean)
    check_network(response, None)
    gone = weakref.ref(response)
    before = len(samples._seen)
    del response
    gc.collect()
    assert gone() is None and len(samples._seen) < before


def test_inside_jit_the_look_is_left_out():
    apply, variables = TRAINING["NNX BatchNorm"]()
    response = ifv.make_response(apply, PHI, ifv.mean)
    assert jax.jit(lambda w: jnp.asarray(check_network(response, w)))(variables) == 6


@pytest.mark.parametrize("variables", [None, {}, (), {"scale": 2.0}])
def test_weights_that_are_closed_over_are_told(variables, caplog):
    response = ifv.make_response(lambda _, x: networks.plain_apply(VARIABLES, x), PHI)
    with caplog.at_level(logging.WARNING, logger="ifv_jax"):
        for _ in range(2):
            check_network(response, variables)
    assert [record.name for record in caplog.records] == ["ifv_jax.checks.samples"]
    assert "constants" in caplog.text and "constants" in ifv.make_response.__doc__
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="ifv_jax"):
        check_network(networks.response(), VARIABLES)
    assert not caplog.records
