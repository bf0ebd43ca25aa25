"""The benchmarks of speed on a tiny network, and what they call the same results."""

import jax
import numpy as np
import pytest

import ifv_jax as ifv
from benchmarks import report, timing, vs_pytorch, workloads
from ifv_jax.engine import network
from models.network import Network
from tests import networks


@pytest.fixture(scope="module")
def work():
    network = Network(
        networks.plain_apply, networks.plain_variables(), networks.SHAPE, ("last",), {}
    )
    response, objective = networks.response(), networks.objective()
    return workloads.Workload(network, response, objective, adam_steps=100, lbfgs_steps=10)


def test_a_row_of_the_table(work, monkeypatch):
    monkeypatch.setattr(workloads, "load", lambda name, path: work)
    row = timing.measure("tiny", "nowhere", batch=2, adam=4, lbfgs=2, rate=50.0)
    assert (row["features"], row["parameters"]) == (networks.FEATURES, 8 * 8 * 3)
    seconds, step = row["seconds_a_sample"], row["seconds_a_step_and_sample"]
    assert all(value > 0 for value in seconds.values())
    assert seconds["fv"] == pytest.approx(100 * step["adam"] + 10 * step["lbfgs"])
    # Two convolutions, forwards and back to their inputs, taps outside of the image left out.
    assert 2 * 2 * 22**2 * (3 + 6) * 8e-9 < row["gflop_a_step"] < 2 * 2 * 24**2 * (3 + 6) * 8e-9
    assert "tiny" in timing.table({"tiny": row})


def test_what_is_measured_is_what_the_library_finds(work):
    v = work.response.parametrization.init(jax.random.key(0), 1)
    measured = workloads.inversion(work, v)
    expected = ifv.invert(work.response, work.network.variables, v)
    np.testing.assert_array_equal(measured.predictions.objective, expected.objective)


def test_the_jacobian_compiles_once_and_traces_nothing_twice(work):
    variables, traced = work.network.variables, []

    def apply(variables, images):
        traced.append(1)
        return networks.plain_apply(variables, images)

    response = ifv.make_response(apply, ifv.sigmoid_pixels(networks.SHAPE))
    v = response.parametrization.init(jax.random.key(0), 3)
    ifv.invert(response, variables, v)
    first, compiled = len(traced), network._pull_back.cache_size()
    other = jax.tree.map(lambda a: 2 * a, variables)
    ifv.invert(response, other, v + 0.1)
    assert len(traced) == first
    assert network._pull_back.cache_size() == compiled


def test_ratios_are_ours_over_theirs():
    assert report.ratio([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])["median"] == 1.0
    reached = {"start": [1.0], "significance": [1.0], "lbfgs_significance": [1.0]}
    reached |= {"commit": "abc"}
    runs = {
        side: [{"adam_step": seconds, "lbfgs_step": seconds} | reached]
        for side, seconds in (("ours", 0.5), ("pytorch", 2.0))
    }
    found = vs_pytorch.compare(runs)
    assert found["ratio"]["adam_step"]["median"] == 0.25
    assert set(found["ratio"]) == {"adam_step", "lbfgs_step"}
    assert found["commits"] == ["abc"]


def test_sides_that_disagree_are_not_compared():
    one = {
        "start": [1.0],
        "significance": [2.0],
        "lbfgs_significance": [3.0],
        "objective": [1.0, 0.0],
        "jacobian_norm": 5.0,
        "gap": 0.2,
    }
    vs_pytorch.check("case", vs_pytorch.agreement(one, one))
    for wrong in (
        {"start": [1.1]},
        {"significance": [2.5]},
        {"jacobian_norm": 5.1},
        {"objective": [0.9, 0.44]},
    ):
        with pytest.raises(RuntimeError, match="agree"):
            vs_pytorch.check("case", vs_pytorch.agreement(one, one | wrong))


def test_rounding_keeps_the_form():
    assert report.rounded({"a": {"b": 1.23456, "c": 7}, "d": "x"}) == {
        "a": {"b": 1.235, "c": 7}, "d": "x"
    }  # fmt: skip
