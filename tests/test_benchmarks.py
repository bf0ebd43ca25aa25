"""The experiment and its report on a tiny network; the form of summary.json."""

import json
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest

import ifv_jax as ifv
from benchmarks import cases, densenet, experiment, figures, report
from models.network import Network
from tests import networks

DESIGN_KEYS = {
    "name", "network", "layer", "features", "space_dim", "aggregation", "parametrization",
    "cosine_power", "estimator", "source", "samples", "seed", "adam_steps", "lbfgs_steps",
    "status_counts", "angle_deg", "angle_valid_deg", "live_floor_deg", "ssim", "coefficients",
    "seconds",
}  # fmt: skip


def apply(variables, images, *, upto):
    assert upto == "last"
    return networks.plain_apply(variables, images)


@pytest.fixture(scope="module")
def setting():
    network = Network(apply, networks.plain_variables(), (16, 16, 3), ("last",), {})
    return experiment.Setting(
        name="tiny, all", network_name="tiny", network=network, layer="last", features=None,
        samples=4, canonical=1, reoptimized=2, reoptimization_steps=5,
        config=ifv.FVConfig(adam_steps=20, lbfgs_steps=5, steps_per_call=10, batch_size=4),
    )  # fmt: skip


def test_an_experiment_from_start_to_summary(setting, tmp_path):
    setting = replace(setting, critical=True, tau_max=0.9, pairs=1)
    outcome = cases.run_case(setting, ifv.Run(tmp_path / "run"))
    again = cases.run_case(setting, ifv.Run(tmp_path / "run"), verify=False)
    np.testing.assert_array_equal(outcome.measured.v, again.measured.v)
    np.testing.assert_array_equal(outcome.predictions.objective, again.predictions.objective)
    choice, notes = cases.find_space(setting, outcome.measured)
    assert choice.space.basis.shape[0] == networks.FEATURES
    path = report.write_cases(tmp_path, outcome.cases)
    written = json.loads(path.read_text())
    assert set(written) == {"cases", "environment"}
    *_, plain, row = written["cases"]
    assert (plain["estimator"], row["estimator"]) == ("closed_form", "closed_form_off_kinks")
    seconds = row["seconds"] | {"invert": plain["seconds"]["invert"]}
    assert all(isinstance(each, float) for each in seconds.values())
    assert (
        plain["notes"]["spaces"] == notes["spaces"]
        and row["notes"]["pairs"] == 1
        and not plain["ssim"]
    )
    assert set(row) >= DESIGN_KEYS and row["samples"] == 4 and row["status_counts"] == {"ok": 4}
    assert set(row["angle_deg"]) == {"predicted", "response", "random"}
    assert set(row["ssim"]) == {"predicted", "target", "response", "random"}
    assert len(row["coefficients"]) == networks.FEATURES
    assert written["environment"]["packages"]["jax"]
    assert "tiny, all, off kinks" in report.table(outcome.cases)
    cases.picture(tmp_path, setting, outcome)
    figures.angle_plot(tmp_path / "angles.png", {"tiny": outcome.angles})
    assert {p.name for p in tmp_path.glob("*.png")} == {"tiny_all.png", "angles.png"}


def test_seconds_of_an_interrupted_stage_are_not_reported(setting, tmp_path, monkeypatch):
    response, objective = experiment.make(setting)
    run = ifv.Run(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(ifv, "linearize_all", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            experiment.measure(setting, response, objective, run)
    measured = experiment.measure(setting, response, objective, run)
    predictions = experiment.predict(setting, measured, None)
    seconds = cases.to_case(setting, measured, predictions, None).seconds
    assert seconds["visualize"] is None and seconds["reoptimize"] is None
    assert seconds["invert"] > 0


def test_a_failed_sample_counts_as_90_degrees(setting):
    response, objective = experiment.make(setting)
    measured = experiment.measure(setting, response, objective, ifv.Run(None))
    status = np.asarray(measured.fv_status).copy()
    status[0] = ifv.Status.SILENT
    measured = measured._replace(fv_status=status)
    predictions = experiment.predict(setting, measured, None)
    assert cases.angles(setting, measured, predictions, None)["predicted"][0] == 90
    case = cases.to_case(setting, measured, predictions, None)
    assert case.status_counts == {"ok": 3, "silent": 1}
    assert case.angle_deg["predicted"]["count"] == 4
    assert case.angle_valid_deg["predicted"]["count"] == 3


def test_a_prediction_whose_sign_is_a_convention_counts_with_its_angle(setting):
    response, objective = experiment.make(setting)
    measured = experiment.measure(setting, response, objective, ifv.Run(None))
    measured = measured._replace(response=-np.abs(np.asarray(measured.response)))
    predictions = experiment.predict(setting, measured, None)
    assert (predictions.status == ifv.Status.SIGN_CONVENTION).all()
    expected = ifv.angular_distance(predictions.objective, measured.targets)
    angles = cases.angles(setting, measured, predictions, None)["predicted"]
    np.testing.assert_allclose(angles, expected)
    case = cases.to_case(setting, measured, predictions, None)
    assert case.angle_valid_deg["predicted"]["count"] == 4
    assert case.status_counts == {"sign_convention": 4}


def test_the_form_is_the_designs():
    assert {field.name for field in fields(report.Case)} >= DESIGN_KEYS
    assert report.spread([]) == {"median": None, "p90": None, "count": 0}
    assert report.spread([1.0, float("nan"), 3.0]) == {"median": 2.0, "p90": 2.8, "count": 2}


def test_angles_of_a_complement():
    ones = np.ones((10, 1)) / np.sqrt(10)
    angles = partial(densenet.complement_angles, never_seen=4)
    space = ifv.critical_space_from_complement(ones)
    assert densenet.complement_angles(space, None)["largest_angle_to_reference_deg"] < 1e-3
    both = np.linalg.qr(np.stack([ones[:, 0], np.eye(10)[4]], 1))[0]
    assert angles(ifv.critical_space_from_complement(both))["largest_angle_to_reference_deg"] < 1e-3
    wrong = ifv.critical_space_from_complement(np.eye(10)[:, :1])
    assert densenet.complement_angles(wrong, None)["largest_angle_to_reference_deg"] > 60
