"""A run folder returns what was asked for: another job is computed, or refused, never mixed up."""

import json
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ifv_jax as ifv
from ifv_jax.engine import adam, fixed_points, runs
from ifv_jax.engine.fingerprints import fingerprint
from ifv_jax.engine.problem import Problem
from ifv_jax.parametrization import Parametrization

SHAPE, N = (4, 4, 3), 6
CONFIG = ifv.FVConfig(adam_steps=4, lbfgs_steps=0, steps_per_call=2, batch_size=2)
PHI = ifv.sigmoid_pixels(SHAPE)


def weights(seed=0):
    return {"kernel": np.random.default_rng(seed).standard_normal((3, N)).astype("f4")}


def plain_apply(variables, images):
    """A layer of 1 x 1 pixels: quick to compile."""
    return jnp.tanh(jnp.einsum("bhwc,cf->bhwf", images - 0.5, variables["kernel"]))


def scaled_apply(variables, images):
    return 1.01 * plain_apply(variables, images)


def gelu_apply(variables, images):
    return jax.nn.gelu(plain_apply(variables, images) - 0.1)


def relu_apply(variables, images):
    return jax.nn.relu(plain_apply(variables, images) - 0.1)


def by_a_table(table):
    table = jnp.asarray(table)
    inner = jax.jit(lambda x: x * table)
    return lambda variables, images: inner(plain_apply(variables, images))


def shifted_start(shift):
    """The same images, from another beginning."""
    return replace(PHI, init=lambda key, batch: shift + PHI.init(key, batch))


@pytest.fixture(scope="module")
def targets():
    return ifv.sample_targets(jax.random.key(1), 2, features=N)


def arguments(targets, *, apply=plain_apply, phi=PHI, aggregate=ifv.max_mean,
              features=None, cosine_power=2.0, variables=None, key=None, config=CONFIG,
              start=None):  # fmt: skip
    response = ifv.make_response(apply, phi, aggregate, features=features)
    objective = ifv.make_objective(response, cosine_power=cosine_power)
    variables = weights() if variables is None else variables
    key = jax.random.key(0) if key is None else key
    return objective, variables, targets, key, start, config


def job(folder, targets, **options):
    objective, variables, targets, key, start, config = arguments(targets, **options)
    return ifv.visualize(
        objective, variables, targets, key, config=config, start=start, run=ifv.Run(folder)
    )


OTHER_DATA = {
    "features": {"features": (5, 4, 3, 2, 1, 0)},
    "cosine power": {"cosine_power": 0.0},
    "weights": {"variables": weights(1)},
    "names of weights": {"variables": {**weights(), "third": jnp.zeros(1)}},
    "key": {"key": jax.random.key(1)},
    "steps": {"config": replace(CONFIG, adam_steps=7)},
    "rate": {"config": replace(CONFIG, learning_rate=0.1)},
    "jitter": {"config": replace(CONFIG, jitter=1)},
    "start": {"start": jnp.zeros((2, *SHAPE))},
    "shape of v": {"phi": ifv.fourier(SHAPE)},
    "shape of the image": {"phi": ifv.sigmoid_pixels((5, 4, 3))},
}
OTHER_PROGRAMS = {
    "layer": {"apply": lambda v, images: jnp.tanh(plain_apply(v, images))},
    "slightly other layer": {"apply": scaled_apply},
    "aggregation": {"aggregate": ifv.mean},
    "options of the aggregation": {"aggregate": partial(ifv.max_mean, window=2)},
    "parametrization": {"phi": ifv.sigmoid_pixels(SHAPE, decorrelate=True)},
    "scale of the start": {"phi": shifted_start(0.5)},
    "constant within jit": {"apply": by_a_table([1.0, 1.0, 1.0, 1.0, 1.0, 2.0])},
    "relu": {"apply": relu_apply},
    "gelu": {"apply": gelu_apply},
}


@pytest.fixture(scope="module")
def first(tmp_path_factory, targets):
    folder = tmp_path_factory.mktemp("run")
    return folder, job(folder, targets)


def test_the_same_job_is_read_back(first, targets, monkeypatch):
    folder, found = first
    monkeypatch.setattr(adam, "_step", None)  # nothing is computed
    again = job(folder, targets)
    jax.tree.map(np.testing.assert_array_equal, found, again)


def test_other_data_is_another_job(first, targets):
    def mark(targets, **options):
        return fingerprint(Problem(*arguments(targets, **options), devices=()).identity())

    marks = {what: mark(targets, **options) for what, options in OTHER_DATA.items()}
    marks["nothing"] = mark(targets)
    marks["targets"] = mark(targets[::-1])
    marks["fewer targets"] = mark(targets[:1])
    assert len(set(marks.values())) == len(marks), marks
    # New options that do nothing, devices and functions of other names change nothing.
    assert mark(targets, config=replace(CONFIG, jitter=0)) == marks["nothing"]
    assert mark(targets, phi=ifv.sigmoid_pixels(SHAPE)) == marks["nothing"]


def test_other_data_is_computed(first, targets):
    folder, found = first
    other = job(folder, targets, features=(5, 4, 3, 2, 1, 0))
    assert not np.allclose(other.significance, found.significance)
    assert len(list(folder.glob("visualize_*"))) == 2


@pytest.mark.parametrize("what", OTHER_PROGRAMS)
def test_another_program_is_refused(first, targets, what):
    folder, _ = first
    with pytest.raises(ifv.InputError, match="another program"):
        job(folder, targets, **OTHER_PROGRAMS[what])


def test_a_refactored_program_goes_on_and_is_recorded(tmp_path, targets, monkeypatch):
    found = job(tmp_path, targets)

    @jax.jit
    def refactored(variables, images):
        return plain_apply(variables, 2 * images / 2) + 0 * images.mean()

    (record,) = tmp_path.glob("visualize_*/program.json")
    before = json.loads(record.read_text())["programs"]
    jax.tree.map(np.testing.assert_array_equal, found, job(tmp_path, targets, apply=refactored))
    after = json.loads(record.read_text())["programs"]
    assert len(before) == 1 and after[0] == before[0] and len(after) == 2
    monkeypatch.setattr(Problem, "fixed_points", None)  # both are known now
    for apply in (plain_apply, refactored):
        jax.tree.map(np.testing.assert_array_equal, found, job(tmp_path, targets, apply=apply))


def test_a_run_cut_off_under_relu_does_not_go_on_under_gelu(tmp_path, targets, monkeypatch):
    call = adam._step

    def cut(*arguments):
        cut.calls += 1
        if cut.calls == 2:
            raise KeyboardInterrupt
        return call(*arguments)

    cut.calls = 0
    config = replace(CONFIG, steps_per_call=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(adam, "_step", cut)
        job(tmp_path, targets, apply=relu_apply, config=config)
    with pytest.raises(ifv.InputError, match="another program"):
        job(tmp_path, targets, apply=gelu_apply, config=config)
    whole = job(tmp_path / "whole", targets, apply=relu_apply, config=config)
    resumed = job(tmp_path, targets, apply=relu_apply, config=config)
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_the_record_of_the_program_may_be_damaged(tmp_path, targets):
    found = job(tmp_path, targets)
    record = next(tmp_path.glob("visualize_*/program.json"))
    record.write_text("{")
    jax.tree.map(np.testing.assert_array_equal, found, job(tmp_path, targets))
    record.write_text("{")
    with pytest.raises(ifv.InputError, match="another program"):
        job(tmp_path, targets, apply=relu_apply)


def test_a_response_that_is_not_that_of_the_image_is_refused(tmp_path, targets):
    """Results that were tampered with, checksums and all."""
    job(tmp_path, targets)
    folder = next(tmp_path.glob("visualize_*"))
    (name,) = (path.name for path in folder.glob("group_*"))
    run = ifv.Run(None)
    run.folder = folder
    kept = run.read(name, ifv.Realizations)
    run.forget(name)
    run.write(name, kept._replace(response=1.01 * kept.response))
    with pytest.raises(ifv.InputError, match="response to an image of the run is off"):
        job(tmp_path, targets)


def test_reoptimizing_another_network_is_refused(tmp_path, targets):
    v = PHI.init(jax.random.key(0), 2)
    for apply, refused in ((plain_apply, False), (relu_apply, True)):
        objective = ifv.make_objective(ifv.make_response(apply, PHI, ifv.mean))
        arguments = (objective, weights(), v, targets)
        options = {"steps": 3, "run": ifv.Run(tmp_path), "window": 3}
        if refused:
            with pytest.raises(ifv.InputError, match="another program"):
                ifv.reoptimize(*arguments, **options)
        else:
            ifv.reoptimize(*arguments, **options)


def test_states_stay_until_the_result_is_kept(tmp_path, targets, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "write", lambda self, name, value: False)
        found = job(tmp_path, targets)
    assert list(tmp_path.glob("visualize_*/group_*_states"))
    monkeypatch.setattr(adam, "_step", lambda *_: 1 / 0)  # read, not computed
    again = job(tmp_path, targets)
    jax.tree.map(np.testing.assert_array_equal, found, again)
    assert not list(tmp_path.glob("visualize_*/group_*_states"))


class Halves(NamedTuple):
    low: object
    high: object


SPLIT = {
    "NamedTuple": (Halves, tuple),
    "tuple": (lambda a, b: (a, b), tuple),
    "list": (lambda a, b: [a, b], tuple),
    "integer keys": (lambda a, b: {1: a, 0: b}, lambda v: (v[1], v[0])),
    "nested": (lambda a, b: {"x": (a, {"y": b})}, lambda v: (v["x"][0], v["x"][1]["y"])),
}


@pytest.mark.parametrize("kind", SPLIT)
def test_v_of_any_structure_comes_back_as_it_was(tmp_path, targets, kind):
    join, split = SPLIT[kind]

    def init(key, batch):
        v = PHI.init(key, batch)
        return join(v[:, :2], v[:, 2:])

    def apply(v):
        return PHI.apply(jnp.concatenate(split(v), axis=1))

    phi = Parametrization(init, apply, SHAPE)
    found = job(tmp_path, targets, phi=phi)
    again = job(tmp_path, targets, phi=phi)
    assert type(again.v) is type(found.v)
    assert jax.tree.structure(again) == jax.tree.structure(found)
    jax.tree.map(np.testing.assert_array_equal, found, again)


def test_fixed_points_that_differ_by_rounding_agree():
    rng = np.random.default_rng(0)
    r, g = rng.standard_normal((8, 6)), rng.standard_normal((8, 50))
    kept = fixed_points.Points(r.astype("f4"), g.astype("f4"))
    run = ifv.Run(None)
    for size, refused in ((1e-6, False), (1e-5, False), (1e-3, True), (np.nan, True)):
        found = fixed_points.Points((r * (1 + size)).astype("f4"), kept.gradient)
        if refused:
            with pytest.raises(ifv.InputError, match="off by"):
                fixed_points._compare(run, kept, found)
        else:
            fixed_points._compare(run, kept, found)
    with pytest.raises(ifv.InputError, match="gradients"):
        fixed_points._compare(run, kept, kept._replace(gradient=kept.gradient + 0.01))
