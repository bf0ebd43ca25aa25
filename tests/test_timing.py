"""The benchmarks of speed on a tiny network, and what they call the same results."""

import jax
import numpy as np
import pytest

import ifv_jax as ifv
from benchmarks import speed, summary, timing, vs_pytorch
from benchmarks.networks import DNDE, Functions
from ifv_jax.engine import network as compiled_network
from models.network import Network
from tests import networks


@pytest.fixture(scope="module")
def work():
    return Functions(networks.plain_variables(), networks.response(), networks.objective())


def test_a_row_of_the_table():
    def apply(variables, images, *, upto):
        assert upto == "last"
        return networks.plain_apply(variables, images)

    network = Network(apply, networks.plain_variables(), networks.SHAPE, ("last",), {})
    layer = DNDE._replace(tap="last", adam_steps=100, lbfgs_steps=10)
    row = timing.measure(layer, network, batch=2, adam=4, lbfgs=2, rate=50.0)
    assert (row["features"], row["parameters"]) == (networks.FEATURES, 8 * 8 * 3)
    seconds, step = row["seconds_a_sample"], row["seconds_a_step_and_sample"]
    assert all(value > 0 for value in seconds.values())
    assert seconds["fv"] == pytest.approx(100 * step["adam"] + 10 * step["lbfgs"])
    # Two convolutions, forwards and back to their inputs, taps outside of the image left out.
    assert 2 * 2 * 22**2 * (3 + 6) * 8e-9 < row["gflop_a_step"] < 2 * 2 * 24**2 * (3 + 6) * 8e-9
    assert "tiny" in timing.table([{"name": "tiny"} | row])


def test_what_is_measured_is_what_the_library_finds(work):
    v = work.response.parametrization.init(jax.random.key(0), 1)
    measured = speed.inversion(work, v)
    expected = ifv.invert(work.response, work.variables, v)
    np.testing.assert_array_equal(measured.predictions.objective, expected.objective)


def test_the_jacobian_compiles_once_and_traces_nothing_twice(work):
    variables, traced = work.variables, []

    def apply(variables, images):
        traced.append(1)
        return networks.plain_apply(variables, images)

    response = ifv.make_response(apply, ifv.sigmoid_pixels(networks.SHAPE))
    v = response.parametrization.init(jax.random.key(0), 3)
    ifv.invert(response, variables, v)
    first, compiled = len(traced), compiled_network.compiled(response)
    other = jax.tree.map(lambda a: 2 * a, variables)
    ifv.invert(response, other, v + 0.1)
    assert len(traced) == first
    assert compiled_network.compiled(response) == compiled


def test_ratios_are_ours_over_theirs():
    assert summary.ratio([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])["median"] == 1.0
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
    rounded = {"a": {"b": 1.235, "c": 7}, "d": "x"}
    assert summary.rounded({"a": {"b": 1.23456, "c": 7}, "d": "x"}) == rounded
