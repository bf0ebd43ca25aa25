"""A training goes on with what it began with: its recipe, data, first weights and program."""

import json
import logging
import os
import pickle
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ifv_jax.engine.fingerprints import fingerprint
from models import densenet, srnet, weights_io
from models.training import checkpoints, identity, srnet_data, volumes
from models.training import densenet as recipe
from models.training import srnet as srnet_recipe
from tests.models.conftest import random_variables
from tests.models.fake_cifar10 import write_cifar10

OPTIONS = ["--depth", "10", "--growth-rate", "2", "--batch-size", "16", "--limit", "32"]


def content(folder: Path) -> dict:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def untouched(folder: Path, run, *words):
    before = content(folder)
    with pytest.raises(ValueError) as error:
        run()
    for word in ("--out", str(folder), *words):
        assert word in str(error.value), error.value
    assert content(folder) == before


# Checks alone


class Recipe(NamedTuple):
    steps: int = 3
    rate: float = 0.1
    start: str | None = None


def marks(**values: str):
    return {name.replace("_", " "): lambda value=value: value for name, value in values.items()}


def test_a_new_folder_is_made_and_known_again(tmp_path):
    out = tmp_path / "a" / "b"
    identity.check(out, Recipe(), marks(images="x", program="p"))
    before = content(out)
    identity.check(out, Recipe(), marks(images="x", program="p"))
    assert content(out) == before and list(before) == ["recipe.json"]


@pytest.mark.parametrize(
    ("other", "values", "words"),
    [
        (Recipe(4), {}, ["steps = 3", "got 4"]),
        (Recipe(rate=0.2), {}, ["rate = 0.1"]),
        (Recipe(start="x"), {}, ["start = None"]),
        (Recipe(), {"images": "y"}, ["the images", "hash x", "hash y"]),
        (Recipe(), {"labels": "y"}, ["the labels"]),
        (Recipe(), {"program": "q"}, ["the program", "JAX", 'delete the entry "program"']),
    ],
)
def test_another_training_is_refused(other, values, words, tmp_path):
    mine = {"images": "x", "labels": "l", "program": "p"}
    identity.check(tmp_path, Recipe(), marks(**mine))
    untouched(
        tmp_path, lambda: identity.check(tmp_path, other, marks(**{**mine, **values})), *words
    )


def test_what_is_expensive_is_not_computed_in_vain(tmp_path):
    identity.check(tmp_path, Recipe(), marks(images="x", program="p"))
    late = {**marks(images="y"), "program": lambda: pytest.fail("traced")}
    with pytest.raises(ValueError, match="the images"):
        identity.check(tmp_path, Recipe(), late)
    with pytest.raises(ValueError, match="steps"):
        identity.check(tmp_path, Recipe(4), {"images": lambda: pytest.fail("hashed")})


def test_folders_from_before_have_it_recorded(tmp_path, capsys):
    (tmp_path / "recipe.json").write_text(json.dumps(Recipe()._asdict()))
    identity.check(tmp_path, Recipe(), marks(images="x"))
    assert "recorded in" in capsys.readouterr().out
    identity.check(tmp_path, Recipe(), marks(images="x", program="p"))
    assert "program" in capsys.readouterr().out
    identity.check(tmp_path, Recipe(), marks(images="x", program="p"))
    assert not capsys.readouterr().out
    with pytest.raises(ValueError, match="the images"):
        identity.check(tmp_path, Recipe(), marks(images="y", program="p"))
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"steps": 4}))
    with pytest.raises(ValueError, match="steps = 4"):
        identity.check(tmp_path, Recipe(), marks(images="x"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '{"contents": 3}', "\x00", "[" * 10**5]
)
def test_a_damaged_recipe_is_named(text, tmp_path):
    (tmp_path / "recipe.json").write_text(text)
    untouched(
        tmp_path, lambda: identity.check(tmp_path, Recipe(), marks(images="x")), "recipe.json"
    )


def test_checkpoints_without_a_recipe_are_not_continued(tmp_path):
    (tmp_path / "checkpoints" / "8").mkdir(parents=True)
    (tmp_path / "checkpoints" / "8" / "x").write_text("x")
    untouched(
        tmp_path, lambda: identity.check(tmp_path, Recipe(), marks(images="x")), "recipe.json"
    )


ONES = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    "other",
    [
        ONES.T.copy(), ONES.astype(float), ONES.astype(np.int32), ONES * 2, [ONES, ONES], [[ONES]],
        {"a": ONES}, {"b": ONES}, (ONES, "a"), ("a", ONES), [], "ones", 1, 1.0, True,
        np.nextafter(ONES, 2), {"a": {"b": ONES}}, {"a": [1, 23]}, {"a": [12, 3]}, ["ab", "c"],
        ["a", "bc"], np.asfortranarray(ONES) * 3,
    ],
    ids=range(22),
)  # fmt: skip
def test_digests_differ(other):
    assert fingerprint(ONES) == fingerprint(jnp.asarray(ONES))
    assert fingerprint(np.asfortranarray(ONES)) == fingerprint(ONES)
    assert fingerprint(other) != fingerprint(ONES)


# Checkpoints


class Kept(NamedTuple):
    params: dict
    counts: jax.Array


def state(seed: int) -> Kept:
    rng = np.random.default_rng(seed)
    return Kept(
        {"w": jnp.asarray(rng.standard_normal((20, 30)), jnp.float32), "b": jnp.zeros(3)},
        jnp.arange(5),
    )


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.structure(a) == jax.tree.structure(b)


@pytest.fixture
def folder(tmp_path) -> Path:
    with checkpoints.manager(tmp_path / "kept", 2) as manager:
        for step in range(1, 8):
            checkpoints.save(manager, step, state(step))
    return tmp_path / "kept"


def restored(folder):
    with checkpoints.manager(folder, 2) as manager:
        return checkpoints.restore(manager, state(0))


def test_the_newest_is_restored(folder):
    step, found = restored(folder)
    assert step == 6
    same(found, state(6))


# Reads that run on after one has failed tell their event loop, which is closed by then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_flipped_bit_gives_the_one_before(folder, tmp_path):
    """Whatever is read is what was saved; a flip that Orbax does not even read may pass."""
    rng, older = np.random.default_rng(0), 0
    files = [p for p in sorted((folder / "6").rglob("*")) if p.is_file()]
    for i in range(24):
        copy = tmp_path / f"copy{i}"
        shutil.copytree(folder, copy)
        path = copy / files[i % len(files)].relative_to(folder)
        changed = bytearray(path.read_bytes())
        if not changed:
            continue
        changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        step, found = restored(copy)
        assert step in (4, 6)
        same(found, state(step))
        older += step == 4
    assert older > 5


def test_every_number_is_covered_by_the_checksum():
    kept = checkpoints._checksum(6, state(6))
    for change in (
        lambda s: s._replace(counts=s.counts.at[4].add(1)),
        lambda s: s._replace(params={**s.params, "b": s.params["b"].at[0].set(-0.0)}),
        lambda s: s._replace(params={**s.params, "w": s.params["w"].T.reshape(20, 30)}),
    ):
        assert not np.array_equal(kept, checkpoints._checksum(6, change(state(6))))
    assert not np.array_equal(kept, checkpoints._checksum(4, state(6)))


def test_checkpoints_from_before_there_were_checksums(tmp_path, caplog):
    import orbax.checkpoint as ocp

    with checkpoints.manager(tmp_path, 2) as manager:
        manager.save(2, args=ocp.args.StandardSave(state(2)))
    with caplog.at_level(logging.WARNING):
        step, found = restored(tmp_path)
    assert step == 2 and "without a checksum" in caplog.text
    same(found, state(2))
    with checkpoints.manager(tmp_path, 2) as manager:
        checkpoints.save(manager, 4, state(4))
    assert restored(tmp_path)[0] == 4


@pytest.mark.skipif(os.name != "posix", reason="Windows allows fewer names")
@pytest.mark.parametrize("name", ["a[b]", "a*b", "a\\b", "gs:", "a b", "é"])
def test_folders_of_odd_names(name, tmp_path):
    with checkpoints.manager(tmp_path / name, 1) as manager:
        checkpoints.save(manager, 1, state(1))
    step, found = restored(tmp_path / name)
    assert step == 1 and os.listdir(tmp_path) == [name]
    same(found, state(1))


# DenseNet: what comes before the first step


class Begun(Exception):
    """The training would go on now."""


@pytest.fixture
def begin(monkeypatch):
    def stop(*_):
        raise Begun

    monkeypatch.setattr(checkpoints, "manager", stop)

    def begin(data, out, *more):
        with pytest.raises(Begun):
            train(data, out, *more)

    return begin


def train(data, out, *more):
    recipe.main(["--data", str(data), "--out", str(out), *OPTIONS, *more])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_cifar10(tmp_path_factory.mktemp("identity") / "data", per_file=16)


@pytest.fixture
def out(begin, data, tmp_path) -> Path:
    begin(data, tmp_path / "out")
    return tmp_path / "out"


def test_other_data_is_refused(data, out, begin, tmp_path):
    other = write_cifar10(tmp_path / "other", per_file=16, seed=1)
    untouched(out, lambda: train(other, out), "training images")
    for file, name in (("data_batch_1", "training images"), ("test_batch", "test images")):
        content = (data / file).read_bytes()
        for part in (b"data", b"labels"):
            changed = Path(shutil.copytree(data, tmp_path / f"{file}{part}"))
            stored = pickle.loads(content, encoding="bytes")
            if part == b"data":
                stored[part][3, 100] ^= 1
            else:
                stored[part][3] = (stored[part][3] + 1) % 10
            (changed / file).write_bytes(pickle.dumps(stored, protocol=2))
            untouched(out, lambda changed=changed: train(changed, out), name)
    begin(shutil.copytree(data, tmp_path / "moved"), out)  # the same data


def test_a_training_from_before_goes_on(data, out, begin, tmp_path, capsys):
    path = out / "recipe.json"
    old = json.loads(path.read_text())
    recorded = old.pop("contents")
    path.write_text(json.dumps(old))
    begin(data, out)
    assert "recorded in" in capsys.readouterr().out
    assert json.loads(path.read_text())["contents"] == recorded
    other = write_cifar10(tmp_path / "other", per_file=16, seed=1)
    untouched(out, lambda: train(other, out), "training images")


def test_another_program_is_refused(data, out, begin, monkeypatch):
    monkeypatch.setattr(recipe, "WEIGHT_DECAY", 2e-4)
    untouched(out, lambda: train(data, out), "program")
    path = out / "recipe.json"
    old = json.loads(path.read_text())
    del old["contents"]["program"]
    path.write_text(json.dumps(old))
    begin(data, out)


def test_other_weights_to_start_from_are_refused(data, begin, tmp_path):
    start, out = tmp_path / "start", tmp_path / "out"
    variables = random_variables(densenet.DenseNet(10, 2, 10))
    card = {"architecture": {"depth": 10, "growth_rate": 2, "classes": 10}}
    weights_io.save(start / "weights.npz", variables, card)
    begin(data, out, "--start-from", str(start))
    begin(data, out, "--start-from", str(start))
    variables["params"]["head"]["bias"] = variables["params"]["head"]["bias"].at[3].add(1e-3)
    weights_io.save(start / "weights.npz", variables, card)
    untouched(out, lambda: train(data, out, "--start-from", str(start)), "weights to start from")


# SRNet


def test_other_volumes_are_refused(begin, tmp_path, monkeypatch):
    monkeypatch.setattr(srnet, "BLOCKS", 1)
    blobs = {"train": volumes.metaballs(16, 4), "test": volumes.metaballs(16, 4, seed=2)}
    monkeypatch.setattr(srnet_data, "split", lambda found: ([blobs["train"]], [blobs["test"]]))
    out, options = tmp_path / "out", ["--crop", "4", "--size", "32", "--batch-size", "2"]

    def stop(*_):
        raise Begun

    monkeypatch.setattr(srnet_data, "views", stop)

    def run():
        srnet_recipe.main(["--out", str(out), *options])

    for _ in range(2):
        with pytest.raises(Begun):
            run()
    for name in blobs:
        good = blobs[name]
        values = good.values.copy()
        values[3, 4, 5] += 1e-3
        for other in (
            good._replace(values=values),
            good._replace(spacing=(1.0, 1.0, 1.1)),
            good._replace(isovalue=good.isovalue + 1e-3),
            good._replace(name="other"),
        ):
            blobs[name] = other
            untouched(out, run, {"train": "training volumes", "test": "test volumes"}[name])
        blobs[name] = good
    monkeypatch.setattr(srnet_recipe, "WEIGHTS", {**srnet_recipe.WEIGHTS, "mask": 3.0})
    untouched(out, run, "program")
