"""Runs: finished work survives damage, full disks and other jobs."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import ifv_jax as ifv
from ifv_jax.engine import runs


class Result(NamedTuple):
    a: np.ndarray
    b: dict


def make(value):
    return Result(np.full(3, value), {"c": jnp.arange(2.0)})


def test_computed_once(tmp_path):
    run = ifv.Run(tmp_path)
    first = run.compute("x", Result, lambda: make(1.0))
    again = ifv.Run(tmp_path).compute("x", Result, lambda: make(2.0))
    np.testing.assert_array_equal(first.a, again.a)
    np.testing.assert_array_equal(first.b["c"], again.b["c"])
    assert ifv.Run(None).compute("x", Result, lambda: make(2.0)).a[0] == 2.0


def count_to(run, steps, seen, **options):
    def step(state):
        seen.append(int(state["n"]))
        return {"n": state["n"] + 1}

    return run.iterate("count", {"n": np.zeros((), np.int32)}, step, steps, **options)


def test_iterate_continues(tmp_path):
    seen = []
    count_to(ifv.Run(tmp_path), 4, seen, every=2)
    state = count_to(ifv.Run(tmp_path), 7, seen, every=2)
    assert state["n"] == 7 and seen == list(range(7))


def test_a_damaged_checkpoint_costs_only_itself(tmp_path):
    count_to(ifv.Run(tmp_path), 4, [], every=2)
    newest = max((p for p in (tmp_path / "count").iterdir() if p.name.isdigit()), key=str)
    assert newest.name == "4"
    for file in newest.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    seen = []
    assert count_to(ifv.Run(tmp_path), 5, seen)["n"] == 5
    assert seen == [2, 3, 4]


def test_a_half_written_checkpoint_is_ignored(tmp_path):
    count_to(ifv.Run(tmp_path), 2, [])
    half = tmp_path / "count" / "3.orbax-checkpoint-tmp-123"
    half.mkdir()
    (half / "junk").write_text("")
    seen = []
    assert count_to(ifv.Run(tmp_path), 4, seen)["n"] == 4
    assert seen == [2, 3]


def test_a_full_disk_loses_nothing_finished(tmp_path, monkeypatch, caplog):
    count_to(ifv.Run(tmp_path), 3, [])
    import orbax.checkpoint as ocp

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save", full)
        assert count_to(ifv.Run(tmp_path), 5, [])["n"] == 5
    assert "No space left" in caplog.text
    seen = []
    assert count_to(ifv.Run(tmp_path), 5, seen)["n"] == 5
    assert seen == [3, 4]


def test_another_job_is_refused(tmp_path):
    ifv.Run(tmp_path, (1, np.arange(3)))
    ifv.Run(tmp_path, (1, np.arange(3)))
    with pytest.raises(ifv.InputError, match="another"):
        ifv.Run(tmp_path, (2, np.arange(3)))


def test_parts_of_different_jobs_live_side_by_side(tmp_path):
    run = ifv.Run(tmp_path)
    for value in (1.0, 2.0):
        part = run.part("stage", np.asarray(value))
        assert part.compute("x", Result, lambda value=value: make(value)).a[0] == value
    assert ifv.Run(None).part("stage", 1).folder is None


def test_fingerprint_sees_values_and_types():
    marks = {
        runs.fingerprint(np.arange(3)), runs.fingerprint(np.arange(3.0)),
        runs.fingerprint(np.arange(4)), runs.fingerprint("a"), runs.fingerprint(None),
    }  # fmt: skip
    assert len(marks) == 5
