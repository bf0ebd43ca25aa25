"""Jitter: what it does to images, and that FV with it stays reproducible."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ifv_jax as ifv
from ifv_jax.jitter import shifted
from tests import networks


def test_images_are_rolled_and_each_lane_and_step_by_its_own():
    image = jnp.arange(7 * 5 * 2, dtype=jnp.float32).reshape(7, 5, 2)
    lanes, steps = 30, 3
    keys = jax.random.split(jax.random.key(0), lanes)
    seen = []
    for taken in range(steps):
        images = shifted(2, keys, jnp.full(lanes, taken))(jnp.stack([image] * lanes))
        for one in np.asarray(images):
            places = [
                (dy, dx)
                for dy in range(-2, 3)
                for dx in range(-2, 3)
                if np.array_equal(one, np.roll(image, (dy, dx), (0, 1)))
            ]
            assert len(places) == 1
            seen += places
    assert {dy for dy, _ in seen} == {dx for _, dx in seen} == set(range(-2, 3))
    assert len({tuple(seen[i::lanes]) for i in range(lanes)}) > lanes / 2


def test_fv_with_jitter_repeats_and_resumes(tmp_path):
    targets = ifv.sample_targets(jax.random.key(1), 3, features=networks.FEATURES)

    def run(jitter, batch_size=3, **more):
        config = ifv.FVConfig(
            adam_steps=20, lbfgs_steps=0, steps_per_call=5, batch_size=batch_size, jitter=jitter
        )
        return ifv.visualize(
            networks.objective(), networks.plain_variables(), targets, jax.random.key(7),
            config=config, **more,
        )  # fmt: skip

    found = run(2)
    np.testing.assert_array_equal(found.v, run(2, run=ifv.Run(tmp_path)).v)
    assert np.abs(found.v - run(0).v).max() > 1e-2
    # A lane's shifts are its own, whatever company it is in.
    np.testing.assert_allclose(found.v, run(2, batch_size=2).v, atol=1e-4)


def test_mistakes():
    with pytest.raises(ifv.InputError, match="jitter"):
        ifv.FVConfig(jitter=-1)
