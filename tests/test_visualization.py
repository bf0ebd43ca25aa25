"""FV: it climbs, lanes are alone, bits repeat, silence is noticed, a killed run resumes."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ifv_jax as ifv
from ifv_jax.engine import network
from tests import networks

CONFIG = ifv.FVConfig(adam_steps=30, lbfgs_steps=20, steps_per_call=10, batch_size=4)
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def targets():
    return ifv.sample_targets(jax.random.key(1), 4, features=networks.FEATURES)


@pytest.fixture(scope="module")
def found(targets):
    return ifv.visualize(
        networks.objective(), networks.plain_variables(), targets, KEY, config=CONFIG
    )


def test_it_climbs_and_reports(found, targets):
    assert found.history.shape == (4, 50) and (found.status == ifv.Status.OK).all()
    history = np.asarray(found.history)
    assert (history[:, 30] >= history[:, 0]).all()
    # L-BFGS never takes a step down, and the last entry is what is returned.
    assert (np.diff(history[:, 30:]) >= 0).all() and (history[:, -1] > history[:, 29]).all()
    np.testing.assert_allclose(history[:, -1], found.significance, rtol=1e-5)
    r = networks.objective().response(networks.plain_variables(), found.v)
    np.testing.assert_allclose(r, found.response, rtol=1e-5)
    np.testing.assert_allclose(
        found.significance, ifv.significance(r, targets, cosine_power=2.0), rtol=1e-5
    )


def test_same_key_same_bits(found, targets):
    again = ifv.visualize(
        networks.objective(), networks.plain_variables(), targets, KEY, config=CONFIG
    )
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_lanes_are_alone_and_padded_not_recompiled(found, targets):
    """Three targets, or four in other company, give what they gave; no network is compiled."""
    compiled = network.compiled(networks.objective().response)
    assert compiled == 2
    part = ifv.visualize(
        networks.objective(), networks.plain_variables(), targets[:3], KEY,
        config=ifv.FVConfig(adam_steps=30, lbfgs_steps=20, steps_per_call=10, batch_size=3),
    )  # fmt: skip
    np.testing.assert_allclose(part.v, found.v[:3], atol=1e-3)
    more = jnp.concatenate([targets, targets[::-1], targets[:2]])
    many = ifv.visualize(networks.objective(), networks.plain_variables(), more, KEY, config=CONFIG)
    np.testing.assert_allclose(many.v[:4], found.v, atol=1e-3)
    assert network.compiled(networks.objective().response) == compiled


def test_adam_is_optaxs(targets):
    """One lane against a plain loop over optax."""
    import optax

    variables, objective = networks.plain_variables(), networks.objective()
    config = ifv.FVConfig(adam_steps=15, lbfgs_steps=0, steps_per_call=4)
    start = objective.response.parametrization.init(jax.random.key(3), 1)
    got = ifv.visualize(objective, variables, targets[:1], KEY, config=config, start=start)
    v, adam = start, optax.adam(0.05)
    state = adam.init(v)
    step = jax.jit(jax.grad(lambda v: -objective(variables, v, targets[:1]).sum()))
    for _ in range(15):
        updates, state = adam.update(step(v), state)
        v = optax.apply_updates(v, updates)
    np.testing.assert_allclose(got.v, v, atol=1e-4)


def silent_apply(variables, images):
    """Silent unless an image departs clearly from grey."""
    contrast = jnp.abs(images - 0.5).mean(axis=(1, 2, 3))[:, None, None, None]
    return jax.nn.relu(contrast - 0.05) * (1 + networks.plain_apply(variables, images) ** 2)


def never_apply(variables, images):
    """Feature 0 never responds; the others do."""
    return networks.plain_apply(variables, images).at[..., 0].set(0.0)


def test_a_silent_start_is_given_up_for_another(targets):
    found = ifv.visualize(
        networks.objective(silent_apply), networks.plain_variables(), targets, KEY, config=CONFIG
    )
    assert (found.status == ifv.Status.OK).all() and (found.restarts > 0).all()
    assert (found.significance > 0).all()


def test_what_never_wakes_says_so(targets):
    mixed = targets.at[1].set(jax.nn.one_hot(0, networks.FEATURES))
    config = ifv.FVConfig(adam_steps=5, lbfgs_steps=3, restarts=2, batch_size=4, steps_per_call=5)
    found = ifv.visualize(
        networks.objective(never_apply), networks.plain_variables(), mixed, KEY, config=config
    )
    assert found.status.tolist() == [0, ifv.Status.SILENT, 0, 0]
    assert found.restarts.tolist() == [0, 2, 0, 0]


def log_probabilities(variables, images):
    """Never positive: no target can be pointed at."""
    return jax.nn.log_softmax(networks.plain_apply(variables, images))


def below_zero(variables, images):
    return -jax.nn.softplus(networks.plain_apply(variables, images))


@pytest.mark.parametrize("apply", [log_probabilities, below_zero])
@pytest.mark.parametrize("k", [0.0, 2.0])
def test_what_points_away_from_its_target_is_called_so(targets, apply, k):
    config = ifv.FVConfig(adam_steps=10, lbfgs_steps=0, steps_per_call=5, batch_size=4)
    objective = ifv.make_objective(networks.response(apply), cosine_power=k)
    found = ifv.visualize(objective, networks.plain_variables(), targets, KEY, config=config)
    assert (found.significance < 0).all() and (found.status == ifv.Status.NEGATIVE).all()
    assert ifv.status_counts(found.status) == {"negative": 4}


def stopped(variables, images):
    return networks.plain_apply(variables, jax.lax.stop_gradient(images))


def ignoring(variables, images):
    return jnp.ones((len(images), 4, 4, networks.FEATURES)) * variables["first"].mean()


def rounded(variables, images):
    return jnp.round(20 * networks.plain_apply(variables, images))


@pytest.mark.parametrize("apply", [stopped, ignoring, rounded])
def test_a_response_that_does_not_depend_on_the_input_is_called_so(targets, apply):
    config = ifv.FVConfig(adam_steps=10, lbfgs_steps=5, steps_per_call=5, restarts=2)
    found = ifv.visualize(
        networks.objective(apply), networks.plain_variables(), targets, KEY, config=config
    )
    assert (found.status == ifv.Status.FLAT).all() and (found.restarts == 2).all()
    np.testing.assert_allclose(found.history, np.repeat(found.significance[:, None], 15, 1))


def test_a_flat_start_that_was_given_is_kept(targets):
    """It may be an optimum."""
    start = 0.3 * jax.random.normal(KEY, (4, *networks.SHAPE))
    config = ifv.FVConfig(adam_steps=5, lbfgs_steps=0, steps_per_call=5)
    found = ifv.visualize(
        networks.objective(stopped), networks.plain_variables(), targets, KEY, config=config,
        start=start,
    )  # fmt: skip
    np.testing.assert_array_equal(found.v, start)
    assert set(found.status.tolist()) <= {ifv.Status.OK, ifv.Status.NEGATIVE}
    assert (found.restarts == 0).all()


def poisoned_apply(variables, images):
    """NaN for images whose first pixel is brighter than a limit."""
    bad = images[:, :1, :1, :1] > 0.9
    return jnp.where(bad, jnp.nan, networks.plain_apply(variables, images))


def test_a_lane_that_breaks_is_alone(targets):
    start = 0.01 * jax.random.normal(jax.random.key(0), (4, *networks.SHAPE))
    arguments = (networks.objective(poisoned_apply), networks.plain_variables(), targets, KEY)
    clean = ifv.visualize(*arguments, config=CONFIG, start=start)
    broken = ifv.visualize(*arguments, config=CONFIG, start=start.at[2, 0, 0, 0].set(5.0))
    assert broken.status.tolist() == [0, 0, ifv.Status.NON_FINITE, 0]
    keep = np.asarray([0, 1, 3])
    np.testing.assert_allclose(broken.v[keep], clean.v[keep], atol=1e-3)
    with pytest.raises(ifv.InputError, match="finite"):
        ifv.visualize(*arguments, config=CONFIG, start=start.at[:, 0, 0, 0].set(5.0))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (jnp.ones((2, 5)) / jnp.sqrt(5.0), r"\(batch, 6\)"),
        (jnp.zeros((2, 6)), "unit length"),
        (jnp.full((2, 6), jnp.nan), "unit length"),
        (jnp.zeros((0, 6)), "empty batch"),
        (jnp.ones((1, 6), jnp.int32), "dtype int32"),
    ],
)
def test_bad_targets(bad, message):
    with pytest.raises(ifv.InputError, match=message):
        ifv.visualize(networks.objective(), networks.plain_variables(), bad, KEY)


def test_other_bad_input(targets):
    variables = networks.plain_variables()
    with pytest.raises(ifv.InputError, match="key"):
        ifv.visualize(networks.objective(), variables, targets, 3)  # type: ignore[arg-type]
    with pytest.raises(ifv.InputError, match="start"):
        ifv.visualize(networks.objective(), variables, targets, KEY, start=jnp.zeros((4, 2)))
    for bad in ({"adam_steps": -1}, {"learning_rate": 0.0}, {"batch_size": 0}):
        with pytest.raises(ifv.InputError, match=next(iter(bad))):
            ifv.FVConfig(**bad)


WORKER = """
import sys, numpy as np, jax
import ifv_jax as ifv
from tests import networks
targets = ifv.sample_targets(jax.random.key(1), 6, features=networks.FEATURES)
found = ifv.visualize(
    networks.objective(), networks.plain_variables(), targets, jax.random.key(7),
    config=ifv.FVConfig(adam_steps=400, lbfgs_steps=40, steps_per_call=5, batch_size=3),
    run=ifv.Run(sys.argv[1]),
)
np.savez(sys.argv[2], **{k: np.asarray(v) for k, v in found._asdict().items()})
"""


def test_killed_and_resumed_is_bit_identical(tmp_path):
    def start(folder, out):
        return subprocess.Popen([sys.executable, "-c", WORKER, str(folder), str(out)])

    assert start(tmp_path / "whole", tmp_path / "whole.npz").wait(300) == 0
    job = start(tmp_path / "cut", tmp_path / "cut.npz")
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and job.poll() is None:
        # Wait for the first checkpoint of a group in the middle of its work.
        if list(Path(tmp_path / "cut").rglob("*_states/adam/[1-9]*")):
            break
        time.sleep(0.05)
    assert job.poll() is None, "it finished before it could be killed"
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert not (tmp_path / "cut.npz").exists()
    assert start(tmp_path / "cut", tmp_path / "cut.npz").wait(300) == 0
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "cut.npz") as cut:
        for name in whole.files:
            np.testing.assert_array_equal(whole[name], cut[name])
