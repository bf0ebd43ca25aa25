"""What is stored comes back as it was, or counts as damaged; odd folders, full and locked ones."""

import json
import logging
import subprocess
import sys
import threading
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ifv_jax as ifv
from ifv_jax.engine import storage
from ifv_jax.engine.storage import Stage


class Point(NamedTuple):
    x: object
    y: object


TREES = {
    "array": np.arange(3.0),
    "dict": {"a": np.arange(3), "b": {"c": np.float32(2), "d": None}},
    "integer keys": {1: np.ones(2), 0: np.zeros(2), 10: np.ones(1)},
    "names that sort oddly": {"b": np.ones(1), "a/b": np.zeros(1), "a": {"b": np.ones(2)}},
    "tuple": (np.ones(2), (np.zeros(1),), []),
    "list": [np.ones(2), {"a": [np.zeros(1)]}],
    "empty arrays": {"history": np.zeros((4, 0), np.float32), "v": np.ones((0, 3), np.int8)},
    "nothing": {},
    "dtypes": [np.ones(2, d) for d in ("i1", "u1", "i8", "f2", "f4", "f8", "?", "c8")],
    "bfloat16": jnp.ones(3, jnp.bfloat16),
    "scalars": {"bool": np.bool_(True), "int": 3, "float": 0.5, "nan": np.float32("nan")},
    "Fortran order": np.arange(6.0).reshape(2, 3).T,
}


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", TREES)
def test_trees_come_back_with_and_without_a_pattern(tmp_path, name):
    stage = Stage(tmp_path, "x")
    assert stage.save(3, TREES[name])
    index, value = stage.newest()
    assert index == 3
    same(value, TREES[name])
    same(stage.newest(TREES[name])[1], TREES[name])


def test_other_nodes_come_back_by_a_pattern_alone(tmp_path):
    value = {"v": Point(np.ones(2), {"z": (np.zeros(1),)})}
    stage = Stage(tmp_path, "x")
    stage.save(0, value)
    found = stage.newest(jax.tree.map(lambda _: 0, value))[1]
    assert isinstance(found["v"], Point)
    same(found, value)
    with pytest.raises(ifv.InputError, match="`like`"):
        stage.newest()


NAMES = [
    "plain", "with space", " ", "br[1]", "[0]", "a[b", "a]b", "star*", "q?x", "back\\slash", "{x}",
    "ünï", "火", "gs:", "logs:", "a:b", "%41", "#", "~", "$HOME", "quo'te", 'double"', "a&b;c|d",
    "new\nline", ".hidden", "-dash", "x" * 200,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_folders_of_any_name_keep_what_is_written_and_nothing_beside(tmp_path, name):
    run = ifv.Run(tmp_path / name / "deeper")
    state = run.iterate("count", np.zeros(2), lambda s: s + 1, 3)
    np.testing.assert_array_equal(state, 3)
    seen = []
    again = ifv.Run(tmp_path / name / "deeper").iterate(
        "count", np.zeros(2), lambda s: seen.append(s) or s + 1, 5
    )
    np.testing.assert_array_equal(again, 5)
    assert len(seen) == 2
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("folder", ["gs://bucket/x", "s3://b", "hdfs://x/y", "https://host/x", "",
                                    "a\0b", 3, b"bytes", ["x"], object()])  # fmt: skip
def test_what_is_no_local_folder_is_refused(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ifv.InputError):
        ifv.Run(folder)
    assert not list(tmp_path.iterdir())


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ifv.Run("~/runs/a").folder == tmp_path / "runs" / "a"


@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_bit_is_noticed_and_the_one_before_is_taken(tmp_path, seed, caplog):
    stage, rng = Stage(tmp_path, "x"), np.random.default_rng(seed)
    values = [{"v": rng.standard_normal(500), "step": np.int32(i)} for i in (1, 2)]
    for index, value in enumerate(values, start=1):
        stage.save(index, value)
    files = sorted(p for p in (tmp_path / "x" / "2").rglob("*") if p.is_file() and p.stat().st_size)
    sizes = np.array([p.stat().st_size for p in files])
    file = files[rng.choice(len(files), p=sizes / sizes.sum())]
    content = bytearray(file.read_bytes())
    bit = rng.integers(8 * len(content))
    content[bit // 8] ^= 1 << (bit % 8)
    file.write_bytes(content)
    index, found = stage.newest()
    assert index in (1, 2)
    same(found, values[index - 1])  # what is returned is what was written
    assert index == 2 or "damaged" in caplog.text


def test_every_file_lost_or_emptied_or_swapped(tmp_path):
    stage = Stage(tmp_path, "x")
    for index in (1, 2):
        stage.save(index, np.full(4, index))
    for file in (tmp_path / "x" / "2").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    assert stage.newest()[0] == 1
    for file in (tmp_path / "x" / "1").rglob("*"):
        if file.is_file():
            file.unlink()
    assert stage.newest() is None


def test_a_stage_that_is_not_a_folder(tmp_path):
    (tmp_path / "x").write_text("a file")
    assert Stage(tmp_path, "x").newest() is None


CARDS = [
    "",
    "{",
    "null",
    "[]",
    "3",
    '"text"',
    "{}",
    '{"format": 2}',
    '{"fingerprint": 1}',
    "\xff\xfe",
]


@pytest.mark.parametrize("text", CARDS)
def test_a_damaged_job_card_is_a_sentence(tmp_path, text):
    ifv.Run(tmp_path)
    (tmp_path / "job.json").write_text(text, encoding="latin-1")
    with pytest.raises(ifv.InputError, match=r"job\.json|another version"):
        ifv.Run(tmp_path)


def test_a_card_of_the_first_format_is_told_from_another_job(tmp_path):
    (tmp_path / "job.json").write_text(json.dumps({"fingerprint": "0123456789abcdef"}))
    with pytest.raises(ifv.InputError, match="another version of ifv_jax"):
        ifv.Run(tmp_path)


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ifv.InputError, match="can be written"):
        ifv.Run(tmp_path / "file" / "below")
    with pytest.raises(ifv.InputError, match="can be written"):
        ifv.Run(tmp_path / "file")
    with pytest.raises(ifv.InputError, match="can be written"):
        ifv.Run(tmp_path / ("x" * 300))

    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "write_whole", full)
    with pytest.raises(ifv.InputError, match="No space left"):
        ifv.Run(tmp_path / "new")


def test_what_does_not_read_back_is_said_at_the_first_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_unpack", lambda kept, like: 1 / 0)
    with pytest.raises(ifv.InputError, match="cannot be read back"):
        Stage(tmp_path, "x").save(0, np.ones(2))


def test_a_result_that_could_not_be_written_says_so(tmp_path, monkeypatch, caplog):
    import orbax.checkpoint as ocp

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    run = ifv.Run(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save", full)
        assert not run.write("result", Point(np.ones(1), np.ones(1)))
        assert run.compute("result", Point, lambda: Point(1, 2)) == (1, 2)
    assert "No space left" in caplog.text
    assert run.read("result", Point) is None
    assert run.write("result", Point(np.ones(1), np.ones(1)))
    same(run.read("result", Point), Point(np.ones(1), np.ones(1)))


def test_threads_wait_for_each_other(tmp_path, caplog):
    order, inside = [], threading.Event()

    def first():
        with storage.lock(tmp_path, "x"):
            inside.set()
            order.append(1)
            threading.Event().wait(0.3)
            order.append(2)

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait()
    with caplog.at_level(logging.WARNING), storage.lock(tmp_path, "x"):
        order.append(3)
    thread.join()
    assert order == [1, 2, 3] and "waiting" in caplog.text


TOGETHER = """
import sys, time, logging
import numpy as np
import ifv_jax as ifv
logging.basicConfig()
run = ifv.Run(sys.argv[1])
def step(s):
    time.sleep(0.02)
    with open(sys.argv[1] + "/steps.txt", "a") as file:
        file.write(f"{int(s[0])}\\n")
    return s + 1
print(float(run.iterate("count", np.zeros(2), step, 20, every=2)[0]))
"""


def test_two_processes_in_one_folder_share_the_work_and_say_little(tmp_path):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in started:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.split() == ["20.0"]
        assert len(err.splitlines()) <= 3, err
    steps = (tmp_path / "steps.txt").read_text().split()
    assert sorted(map(int, steps)) == list(range(20))
