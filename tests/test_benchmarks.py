"""The experiments and their report on a tiny network; the form of summary.json."""

import json
from argparse import Namespace
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ifv_jax as ifv
from benchmarks import (
    command_line,
    demo,
    densenet,
    estimators,
    figures,
    harness,
    memory,
    records,
    report,
    spaces,
    srnet_features,
    stages,
    summary,
)
from benchmarks import setting as settings
from benchmarks.networks import DN4CL, TABLE_1
from models.network import Network
from tests import networks

DESIGN_KEYS = {
    *("name", "network", "layer", "features", "space_dim", "aggregation", "parametrization"),
    *("cosine_power", "estimator", "source", "samples", "seed", "adam_steps", "lbfgs_steps"),
    *("status_counts", "angle_deg", "angle_valid_deg", "live_floor_deg", "ssim", "coefficients"),
    "seconds",
}
RESULTS = Path(harness.__file__).parent / "results"
BOTH = (settings.CLOSED_FORM, settings.OFF_KINKS)


def apply(variables, images, *, upto):
    assert upto == "last"
    return networks.plain_apply(variables, images)


@pytest.fixture(scope="module")
def setting():
    network = Network(apply, networks.plain_variables(), (16, 16, 3), ("last",), {})
    return settings.Setting(
        name="tiny, all",
        network_name="tiny",
        network=network,
        layer="last",
        samples=4,
        canonical=1,
        reoptimized=2,
        reoptimization_steps=5,
        config=ifv.FVConfig(adam_steps=20, lbfgs_steps=5, steps_per_call=10, batch_size=4),
    )


@pytest.fixture(scope="module")
def functions(setting):
    return setting.functions()


def closed_form(setting, found, evidence):
    predictions = estimators.solve(setting, evidence, None)
    return report.Estimate(
        settings.CLOSED_FORM, predictions, None, evidence.seconds, verified=None, notes={}
    )


def test_an_experiment_from_start_to_summary(setting, tmp_path):
    setting = replace(setting, critical=True, tau_max=0.9, pairs=1, estimators=BOTH)
    outcome = harness.run(setting, ifv.Run(tmp_path / "run"))
    again = harness.run(setting, ifv.Run(tmp_path / "run"), verify=False)
    np.testing.assert_array_equal(outcome.found.v, again.found.v)
    last, last_again = outcome.estimates[-1], again.estimates[-1]
    np.testing.assert_array_equal(last.predictions.objective, last_again.predictions.objective)
    run = setting.part(ifv.Run(tmp_path / "run"))
    evidence = estimators.gather(setting, setting.functions(), outcome.found, run)
    choice, notes = spaces.find(setting, outcome.found, evidence)
    assert choice.space.basis.shape[0] == networks.FEATURES
    path = summary.write(tmp_path, [asdict(case) for case in outcome.cases], about=1)
    written = json.loads(path.read_text())
    assert set(written) == {"cases", "about", "environment"}
    *_, plain, row = written["cases"]
    assert (plain["estimator"], row["estimator"]) == ("closed_form", "closed_form_off_kinks")
    seconds = row["seconds"] | {"invert": plain["seconds"]["invert"]}
    assert all(isinstance(each, float) for each in seconds.values())
    assert row["notes"]["pairs"] == 1 and not plain["ssim"]
    assert plain["notes"]["spaces"] == notes["spaces"]
    assert set(row) >= DESIGN_KEYS and row["samples"] == 4 and row["status_counts"] == {"ok": 4}
    assert set(row["angle_deg"]) == {"predicted", "response", "random"}
    assert set(row["ssim"]) == {"predicted", "target", "response", "random"}
    assert len(row["coefficients"]) == networks.FEATURES
    assert written["environment"]["packages"]["jax"]
    assert "tiny, all, off kinks" in report.table(outcome.cases)
    assert report.similarities(outcome.cases).count("tiny, all") == 1


def test_a_script_draws_from_its_records(setting, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(harness, "start", lambda: None)
    pictures = replace(setting, name="pictures", estimators=(), targets=jnp.eye(networks.FEATURES))
    drawn = []

    def draw(out, kept):
        drawn.append(kept)
        figures.angle_plot(out / "angles.png", kept)
        for record in kept:
            if record.recovered:
                figures.grid(out, record)
            else:
                captions = figures.objectives(record)
                figures.gallery(out / "gallery.png", record.name, record.images, captions, 3)

    main = partial(
        harness.main,
        "A script.",
        lambda options: [replace(setting, seed=options.seed, estimators=BOTH, pairs=1), pictures],
        draw,
        out=str(tmp_path / "out"),
        work=str(tmp_path / "work"),
        notes=lambda setting, options: {"more": options.seed},
    )
    few = ["--samples", "3", "--adam-steps", "10", "--no-verify", "--seed", "3"]
    main(few)
    said = capsys.readouterr().out
    assert "tiny, all: 3 targets" in said and "summary.json" in said and "similarity" not in said
    pngs = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.png")}
    assert set(pngs) == {"tiny_all.png", "angles.png", "gallery.png"}
    cases = json.loads((tmp_path / "out" / "summary.json").read_text())["cases"]
    assert [case["estimator"] for case in cases] == list(BOTH)
    assert "more" not in cases[0]["notes"] and cases[1]["notes"]["more"] == 3
    assert all(case["adam_steps"] == 10 and case["lbfgs_steps"] == 5 for case in cases)
    experiment, images = drawn[-1]
    assert experiment.best.predicted.shape == (3, networks.FEATURES)
    for case, recovered in zip(cases, experiment.recovered, strict=True):
        assert case["angle_deg"]["predicted"] == summary.spread(recovered.angle_predicted)
    assert images.images.shape == (3, 16, 16, 3) and images.images.dtype == np.uint8
    assert figures.objectives(images)[1] == "feature 1"

    for path in (tmp_path / "out").glob("*.png"):
        path.unlink()
    monkeypatch.setattr(ifv, "visualize", lambda *_, **__: 1 / 0)
    main(["--draw"])
    for before, after in zip(drawn[-2], drawn[-1], strict=True):
        jax.tree.map(np.testing.assert_array_equal, before, after)
    assert pngs == {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.png")}
    with pytest.raises(SystemExit, match="only"):
        main(["--only", "unknown"])


def test_a_script_goes_on_and_only_with_its_own_job(setting, tmp_path, monkeypatch):
    calls = []
    found = stages.visualize(setting, setting.functions(), setting.part(ifv.Run(tmp_path)))

    def linearize_all(*arguments, **options):
        calls.append(1)
        return linearized(*arguments, **options)

    linearized = ifv.linearize_all
    monkeypatch.setattr(ifv, "linearize_all", linearize_all)
    outcome = harness.run(setting, ifv.Run(tmp_path), verify=False)
    again = harness.run(setting, ifv.Run(tmp_path), verify=False)
    np.testing.assert_array_equal(outcome.found.v, found.v)
    assert again.cases == outcome.cases and len(calls) == 1
    # Another setting has another folder, and a folder is not taken for another network's.
    other = replace(setting, seed=1)
    assert other.part(ifv.Run(tmp_path)).folder != setting.part(ifv.Run(tmp_path)).folder
    assert (
        replace(setting, estimators=BOTH).part(ifv.Run(tmp_path)).folder
        == setting.part(ifv.Run(tmp_path)).folder
    )
    bent = setting.network._replace(apply=lambda *a, upto: jnp.tanh(apply(*a, upto=upto)))
    with pytest.raises(ifv.InputError, match="another"):
        harness.run(replace(setting, network=bent), ifv.Run(tmp_path), verify=False)


def test_options_change_samples_and_steps(setting):
    def changed(setting, **values):
        names = ("samples", "adam_steps", "lbfgs_steps")
        return harness.changed(setting, Namespace(**dict.fromkeys(names) | values))

    assert changed(setting) == setting
    few = changed(replace(setting, samples=64, canonical=10), samples=12, adam_steps=7)
    assert (few.samples, few.canonical, few.config.adam_steps) == (12, 2, 7)
    alone = replace(setting, config=ifv.FVConfig(lbfgs_steps=0))
    assert changed(alone, lbfgs_steps=3).config.lbfgs_steps == 0
    assert harness.verified(setting, None)
    assert not harness.verified(setting, []) and not harness.verified(setting, [setting.name])
    assert harness.verified(setting, ["another"])


def test_seconds_of_an_interrupted_stage_are_not_reported(
    setting, functions, tmp_path, monkeypatch
):
    run = ifv.Run(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(jax, "block_until_ready", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            stages.visualize(setting, functions, run)
    found = stages.visualize(setting, functions, run)
    evidence = estimators.gather(setting, functions, found, run)
    seconds = report.to_case(setting, found, closed_form(setting, found, evidence)).seconds
    assert seconds["visualize"] is None and seconds["reoptimize"] is None
    assert seconds["invert"] > 0


def test_a_failed_sample_counts_as_90_degrees(setting, functions):
    found = stages.visualize(setting, functions, ifv.Run(None))
    status = np.asarray(found.status).copy()
    status[0] = ifv.Status.SILENT
    found = found._replace(status=status)
    evidence = estimators.gather(setting, functions, found, ifv.Run(None))
    estimate = closed_form(setting, found, evidence)
    assert report.angles(setting, found, estimate)["predicted"][0] == 90
    case = report.to_case(setting, found, estimate)
    assert case.status_counts == {"ok": 3, "silent": 1}
    assert case.angle_deg["predicted"]["count"] == 4
    assert case.angle_valid_deg["predicted"]["count"] == 3


def test_a_prediction_whose_sign_is_a_convention_counts_with_its_angle(setting, functions):
    found = stages.visualize(setting, functions, ifv.Run(None))
    found = found._replace(response=-np.abs(np.asarray(found.response)))
    evidence = estimators.gather(setting, functions, found, ifv.Run(None))
    estimate = closed_form(setting, found, evidence)
    assert (estimate.predictions.status == ifv.Status.SIGN_CONVENTION).all()
    expected = ifv.angular_distance(estimate.predictions.objective, found.targets)
    angles = report.angles(setting, found, estimate)["predicted"]
    np.testing.assert_allclose(angles, expected)
    case = report.to_case(setting, found, estimate)
    assert case.angle_valid_deg["predicted"]["count"] == 4
    assert case.status_counts == {"sign_convention": 4}


def test_the_form_is_the_designs():
    assert {field.name for field in fields(report.Case)} >= DESIGN_KEYS
    assert summary.spread([]) == {"median": None, "p90": None, "count": 0}
    assert summary.spread([1.0, float("nan"), 3.0]) == {"median": 2.0, "p90": 2.8, "count": 2}


def test_committed_results_have_the_form():
    paths = sorted(RESULTS.glob("*/summary.json"))
    assert paths
    for path in paths:
        written = json.loads(path.read_text())
        assert isinstance(written["cases"], list) and written["environment"]["commit"], path
        for case in written["cases"]:
            if "angle_deg" in case:
                report.Case(**case)
                assert case["estimator"] in estimators.ESTIMATORS


@pytest.mark.parametrize("script", [demo, densenet, srnet_features])
def test_settings_are_those_of_the_committed_results(script):
    options = Namespace(densenet="cifar10", densenet4="cifar10_without_4", srnet="srnet", seed=0)
    name = script.__name__.rpartition(".")[2]
    cases = json.loads((RESULTS / name / "summary.json").read_text())["cases"]
    described = {}
    for one in script.settings(options):
        for estimator in one.estimators:
            described[one.name, estimator] = {
                "layer": one.layer,
                "aggregation": one.aggregation_name,
                "parametrization": one.parametrization_name,
                "cosine_power": one.cosine_power,
                "samples": one.samples,
                "seed": one.seed,
                "adam_steps": one.config.adam_steps,
                "lbfgs_steps": one.config.lbfgs_steps,
            }
    assert list(described) == list(dict.fromkeys((c["name"], c["estimator"]) for c in cases))
    for case in cases:
        expected = described[case["name"], case["estimator"]]
        assert {key: case[key] for key in expected} == expected


def test_thumbnails():
    large = np.random.default_rng(0).uniform(size=(2, 320, 160, 3))
    assert records.thumbnails(large).shape == (2, 160, 80, 3)
    geometry = np.zeros((1, 4, 4, 5))
    geometry[0, 0, 0] = (1, 0, 0, 1, 0.5)  # hit, and seen from the front
    (image,) = records.thumbnails(geometry)
    np.testing.assert_array_equal(image[0, 0], (128, 128, 255))
    np.testing.assert_array_equal(image[1, 1], (255, 255, 255))


def test_memory_is_that_of_another_process(setting, monkeypatch):
    assert 0.05 < memory.peak(jnp.ones, 3) < 4
    monkeypatch.setattr(memory, "peak", lambda *arguments: arguments)
    (asked,) = memory.notes(replace(setting, name="DNcl"), Namespace(densenet="here")).values()
    assert asked == (memory.invert_one, "DNcl", "here")


def test_one_command_line_for_all_scripts():
    options = command_line.parse("Doc.", ["--work", "here"], "seed", "work", more={"default": 2})
    assert vars(options) == {"seed": 0, "work": Path("here"), "more": 2}
    options = command_line.parse("Doc.", ["--seed", "4"], seed={"default": 3})
    assert options.seed == 4


def test_the_papers_layers():
    assert list(TABLE_1) == ["GN4c", "DNcl", "DNde", "SRNet"]
    assert all((layer.adam_steps, layer.lbfgs_steps) != (0, 0) for layer in TABLE_1.values())
    assert DN4CL.never_seen == 4


def test_angles_of_a_complement():
    ones = np.ones((10, 1)) / np.sqrt(10)
    angles = partial(spaces.angles, never_seen=4)
    space = ifv.critical_space_from_complement(ones)
    assert spaces.angles(space, None)["largest_angle_to_reference_deg"] < 1e-3
    both = np.linalg.qr(np.stack([ones[:, 0], np.eye(10)[4]], 1))[0]
    assert angles(ifv.critical_space_from_complement(both))["largest_angle_to_reference_deg"] < 1e-3
    wrong = ifv.critical_space_from_complement(np.eye(10)[:, :1])
    assert spaces.angles(wrong, None)["largest_angle_to_reference_deg"] > 60
