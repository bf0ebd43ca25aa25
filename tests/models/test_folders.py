"""Folders of converted weights: odd names, flipped bits, and those without checksums."""

import json
import logging
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import checksums, weights_io

CARD = {"architecture": {"name": "Net"}, "note": "naïve 日本"}


def variables(seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "params": {
            "conv1": {"kernel": rng.standard_normal((3, 3, 4, 8)).astype("f4")},
            "head": {"bias": rng.standard_normal(8).astype("f4")},
        },
        "batch_stats": {"norm": {"var": rng.uniform(0.5, 1, 8).astype("f4")}},
    }


def template() -> dict:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), variables())


def holds(folder, seed: int = 0):
    found = weights_io.load_folder(folder, template())
    jax.tree.map(np.testing.assert_array_equal, found, variables(seed))
    assert weights_io.load_folder_card(folder) == CARD


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("folders") / "saved"
    weights_io.save_folder(folder, variables(), CARD)
    return folder


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    import shutil

    return Path(shutil.copytree(saved, tmp_path / "copy"))


# Names

NAMES = [
    "plain", "a b", " a ", "a[b]", "[0]", "a[b", "a]b", "[!a]", "a*b", "*", "**", "a?b", "a{b,c}",
    "a\\b", "\\", "a\\", "~", "~user", "é", "日本", "🙂", "a#b", "a%20b", "a:b", "gs:", "logs:",
    "s3:", "file:", "http:", "C:", "a'b", 'a"b', "a|b", "$HOME", "a\nb", ".hidden", "-a", "a" * 200,
    "gs:/bucket/x", "a[b]/c*d/e\\f", "x.unfinished", "0", "variables", "a.npz",
    b"\xff\xfe".decode("utf8", "surrogateescape"),
]  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="Windows allows fewer names")
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names(name, tmp_path):
    place = tmp_path / "place"
    weights_io.save_folder(place / name, variables(), CARD)
    holds(place / name)
    holds(str(place / name))
    first = Path(name).parts[0]
    assert os.listdir(place) == [first]  # nothing beside it
    assert {p.name for p in (place / name).iterdir()} == {"variables", "card.json", checksums.FILE}
    with pytest.raises(FileExistsError):
        weights_io.save_folder(place / name, variables(), CARD)


@pytest.mark.parametrize("pattern", ["a*b", "a?b", "a[x]b"])
def test_a_sibling_that_a_pattern_would_match(pattern, tmp_path):
    weights_io.save_folder(tmp_path / "axb", variables(1), CARD)
    weights_io.save_folder(tmp_path / pattern, variables(), CARD)
    (tmp_path / pattern).rename(tmp_path / "moved")
    weights_io.save_folder(tmp_path / pattern, variables(2), CARD)
    holds(tmp_path / "axb", 1)
    holds(tmp_path / "moved", 0)
    holds(tmp_path / pattern, 2)


@pytest.mark.parametrize("address", ["gs://bucket/x", "s3://bucket/x", "file:///tmp/x", "hf://a/b"])
def test_addresses_are_refused(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (address, Path(address)):
        with pytest.raises(ValueError, match="path on this machine"):
            weights_io.save_folder(path, variables(), CARD)
        with pytest.raises(ValueError, match="path on this machine"):
            weights_io.load_folder(path, template())
    assert not list(tmp_path.iterdir())


def test_home_and_relative_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    weights_io.save_folder("~/a", variables(), CARD)
    weights_io.save_folder("b[c]", variables(1), CARD)
    holds(tmp_path / "a")
    holds("~/a")
    holds(tmp_path / "b[c]", 1)


# Damage


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_a_flipped_bit_in_any_file_is_named(copy):
    rng = np.random.default_rng(0)
    for path in files(copy):
        content = path.read_bytes()
        places = {0, len(content) - 1, *rng.integers(0, max(len(content), 1), 4)}
        for place in sorted(p for p in places if 0 <= p < len(content)):
            changed = bytearray(content)
            changed[place] ^= 1 << rng.integers(8)
            path.write_bytes(changed)
            with pytest.raises(ValueError, match=r"cannot be read.*convert the weights again") as e:
                weights_io.load_folder(copy, template())
            assert path.name in str(e.value) and str(copy) in str(e.value)
        path.write_bytes(content)
    holds(copy)


def test_flipped_bits_all_over_the_card_and_of_the_checksums(copy):
    for name in ("card.json", checksums.FILE):
        content = (copy / name).read_bytes()
        for place in range(0, len(content), 5):
            changed = bytearray(content)
            changed[place] ^= 1 << place % 8
            (copy / name).write_bytes(changed)
            with pytest.raises(ValueError, match=name.replace(".", r"\.")):
                weights_io.load_folder_card(copy)
        (copy / name).write_bytes(content)


def test_files_that_are_missing_or_cut(copy):
    for path in files(copy):
        content = path.read_bytes()
        for damaged in (b"", content[: len(content) // 2], content + b"\0"):
            if damaged != content:
                path.write_bytes(damaged)
                with pytest.raises(ValueError, match="cannot be read"):
                    weights_io.load_folder(copy, template())
        if path.name != checksums.FILE:
            path.unlink()
            with pytest.raises(ValueError, match=f"{path.name} is not there"):
                weights_io.load_folder(copy, template())
        path.write_bytes(content)


def test_files_of_somebody_else_do_not_matter(copy):
    (copy / ".DS_Store").write_bytes(b"x")
    holds(copy)


def test_folders_from_before_there_were_checksums(copy, caplog):
    (copy / checksums.FILE).unlink()
    with caplog.at_level(logging.WARNING):
        holds(copy)
        holds(copy)
    told = [r for r in caplog.records if "before there were checksums" in r.getMessage()]
    assert len(told) == 1
    (copy / "card.json").write_text("[]")
    with pytest.raises(ValueError, match="expected a card in JSON"):
        weights_io.load_folder_card(copy)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="convert the weights again"):
        weights_io.load_folder(tmp_path / "absent", template())
    with pytest.raises(FileNotFoundError, match=r"card\.json"):
        weights_io.load_folder_card(tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        weights_io.load_folder(tmp_path, template())


# What does not fit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["params"].pop("head"), "expected no array params/head/bias"),
        (lambda v: v["params"]["head"].update(more=np.ones(2, "f4")), "array params/head/more"),
        (lambda v: v["params"]["head"].update(bias=np.ones(9, "f4")), r"float32 \(9,\) .*\(8,\)"),
        (lambda v: v["params"]["head"].update(bias=np.ones(7, "f4")), r"float32 \(7,\) .*\(8,\)"),
        (lambda v: v["params"]["head"].update(bias=np.ones(8, "i4")), "int32 .*got float32"),
    ],
)
def test_other_templates(change, message, saved):
    other = variables()
    change(other)
    with pytest.raises(ValueError, match=message):
        weights_io.load_folder(saved, other)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_variances_that_are_none(value, tmp_path):
    other = variables()
    other["batch_stats"]["norm"]["var"][2] = value
    weights_io.save_folder(tmp_path / "a", other, CARD)
    with pytest.raises(ValueError, match="array batch_stats/norm/var"):
        weights_io.load_folder(tmp_path / "a", template())


def test_integers_are_not_cast_and_floats_are(tmp_path):
    ints = jax.tree.map(lambda a: a.astype(np.int32), variables())
    weights_io.save_folder(tmp_path / "ints", ints, CARD)
    with pytest.raises(ValueError, match="got int32"):
        weights_io.load_folder(tmp_path / "ints", template())
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), variables())
    weights_io.save_folder(tmp_path / "half", half, CARD)
    found = weights_io.load_folder(tmp_path / "half", template())
    for name, array in weights_io.flatten(found).items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, weights_io.flatten(half)[name].astype(np.float32))


def test_what_cannot_be_saved_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        weights_io.save_folder(tmp_path / "a", variables(), {"x": object()})
    assert not list(tmp_path.iterdir())


def test_the_checksums_are_those_of_sha256sum(saved):
    import hashlib

    lines = (saved / checksums.FILE).read_text().splitlines()
    assert len(lines) == len(files(saved))
    for line in lines[:-1]:
        digest, name = line.split("  ")
        assert hashlib.sha256((saved / name).read_bytes()).hexdigest() == digest
    assert json.loads((saved / "card.json").read_text()) == CARD
