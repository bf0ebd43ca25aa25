"""`.npz` and `.safetensors`: headers that lie, other floats, arrays that no network can have."""

import io
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from models import densenet, porting, srnet, stored, weights_io
from tests.models.test_porting import random_state


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.npz"


def npy(shape, dtype="<f4", data=b"", fortran=False) -> bytes:
    """An `.npy` whose header says whatever it is told to."""
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + data


def archive(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def refused(path, message, *readers):
    for read in readers or (weights_io.load_arrays, porting.read_state_dict, densenet.load):
        with pytest.raises(ValueError, match=message) as error:
            read(path)
        assert str(path) in str(error.value)


# Sizes


def test_a_file_that_unpacks_to_much_more_is_not_read(path):
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("params/conv1/kernel.npy", "w") as member,
    ):
        member.write(npy((300 << 18,)))
        for _ in range(300):
            member.write(bytes(1 << 20))
    assert path.stat().st_size < 1e6
    refused(path, r"unpacks .* to 300\.0 MiB, nearly all of it the same number")


@pytest.mark.parametrize(
    "shape", [(10**13,), (10**6, 10**7), (2**62, 4), (10**30,), (2**63,), (100, 10**10)]
)
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "|i1"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_headers_that_claim_more_than_is_there(shape, dtype, compression, path):
    archive(path, {"conv1.weight.npy": npy(shape, dtype, bytes(64))}, compression)
    refused(path, r"header of conv1\.weight announces .* bytes, and 64 are there")


@pytest.mark.parametrize("there", [0, 1, 23, 25, 4096])
def test_headers_that_do_not_fit_the_data(there, path):
    archive(path, {"a.npy": npy((6,), data=bytes(there))})
    refused(path, f"announces float32 .*24 bytes, and {there} are there")


@pytest.mark.parametrize("claim", [10**9, 2**40])
def test_members_that_claim_more_than_the_file(claim, path):
    """The sizes in the zip file's own directory are changed."""
    data = bytes(np.random.default_rng(0).integers(256, size=1 << 12, dtype=np.uint8))
    archive(path, {"a.npy": npy((1 << 10,), data=data)}, zipfile.ZIP_STORED)
    content, size = path.read_bytes(), len(npy((1 << 10,), data=data))
    place = content.index(b"PK\x01\x02") + 20  # compressed size, size
    assert content[place : place + 8] == size.to_bytes(4, "little") * 2
    for offsets in ((0,), (4,), (0, 4)):
        changed = bytearray(content)
        for offset in offsets:
            start = place + offset
            changed[start : start + 4] = min(claim, 2**32 - 2).to_bytes(4, "little")
        path.write_bytes(changed)
        refused(path, "cannot be read .*claims to be larger than the file")


@pytest.mark.parametrize("shape", [(-1,), (-2, -3), (3, -1)])
def test_negative_lengths(shape, path):
    archive(path, {"a.npy": npy(shape, data=bytes(24))})
    refused(path, "has a negative length")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (3 << 29, "1.5 GiB"),
     (40 << 40, "40.0 TiB"), (1 << 60, "1,048,576.0 TiB")],
)  # fmt: skip
def test_sizes_in_words(count, text):
    assert stored.megabytes(count) == text


# Members


def test_members_that_are_no_arrays(path):
    good = npy((2,), data=bytes(8))
    for name in ("readme.txt", "a.npy.bak", "__MACOSX/._a", "a.NPY"):
        archive(path, {"b.npy": good, name: b"hello"})
        refused(path, f"it holds {name}")
    archive(path, {"folder/": b"", "b.npy": good})
    refused(path, "it holds folder/")
    archive(path, {"b.npy": good, "c.npy": b"hello"})
    refused(path, "c: ValueError")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "w") as file:
        file.writestr("a.npy", good)
        file.writestr("a.npy", npy((2,), data=bytes(range(8))))
    refused(path, "it holds a twice")


@pytest.mark.parametrize(
    "dtype",
    ["|O", [("x", "<f4")], [("x", "|O")], "<f4, <i8"],
    ids=["object", "record", "both", "2"],
)
def test_what_is_no_number(dtype, path):
    archive(path, {"a.npy": npy((2,), np.lib.format.dtype_to_descr(np.dtype(dtype)), bytes(64))})
    refused(path, "no plain number")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04", b"\x93NUMPY\x01\x00", bytes(999)]
)
def test_files_that_are_no_archives(content, path):
    path.write_bytes(content)
    refused(path, "cannot be read")


def test_every_flipped_bit_of_the_data_is_seen(path):
    state = random_state()
    np.savez(path, **state)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    with zipfile.ZipFile(path) as file:
        places = [i.header_offset + 300 for i in file.infolist() if i.file_size > 1000]
    for place in rng.choice(places, 20):
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        refused(path, "cannot be read", densenet.load)


# Kinds of numbers


def flat(change):
    return {name: change(name, a) for name, a in random_state().items()}


@pytest.mark.parametrize(
    ("change", "atol"),
    [
        (lambda n, a: a.astype(np.float64), 0),
        (lambda n, a: a.astype(np.float16), 5e-3),
        (lambda n, a: a.astype(np.longdouble), 0),
        (lambda n, a: a.astype(a.dtype.newbyteorder(">")), 0),
        (lambda n, a: a.astype(">f8"), 0),
        (lambda n, a: np.asfortranarray(a), 0),
        (lambda n, a: np.asfortranarray(a).astype(">f2"), 5e-3),
        (lambda n, a: a.astype(np.float64) if "bn" in n else a, 0),
    ],
    ids=["double", "half", "long", "big-endian", "big double", "Fortran", "all", "mixed"],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_floats_are_cast(change, atol, save, path):
    save(path, **flat(change))
    variables = densenet.load(path).variables
    state = random_state()
    kernel = state["block2.layer.1.conv2.weight"].transpose(2, 3, 1, 0)
    found = variables["params"]["dense2_layer2"]["conv2"]["kernel"]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, kernel, atol=atol)
    assert porting.read_state_dict(path)["conv1.weight"].dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.astype(np.int64), "got int64 .*save the floating-point weights"),
        (lambda a: a.astype(np.uint8), "got uint8"),
        (lambda a: a > 0, "got bool"),
        (lambda a: a.astype(np.complex64), "got complex64"),
        (lambda a: a.astype("U8"), "got <U"),
        (lambda a: a.astype("datetime64[s]"), "got datetime64"),
        (lambda a: a.astype(float) * 1e39, "finite numbers in the array fc.bias"),
        (lambda a: a * np.inf, "finite numbers in the array fc.bias"),
        (lambda a: np.where(np.arange(a.size) == 1, np.nan, a), "finite numbers in the array"),
        (lambda a: a[:, None], r"float32 \(7,\) .*got float32 \(7, 1\)"),
        (lambda a: a[0], r"float32 \(7,\) .*got float32 \(\)"),
        (lambda a: a[:0], r"float32 \(7,\) .*got float32 \(0,\)"),
    ],
)
def test_what_is_refused(change, message, path):
    np.savez(path, **flat(lambda n, a: change(a) if n == "fc.bias" else a))
    with pytest.raises(ValueError, match=message) as error:
        densenet.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("value", [-1e-6, -1.0, -np.inf])
@pytest.mark.parametrize("name", ["batch_stats/trans1/norm/var", "batch_stats/head_norm/var"])
def test_negative_variances(value, name, small_variables, tmp_path):
    arrays = {k: np.array(v) for k, v in weights_io.flatten(small_variables).items()}
    card = {"architecture": {"depth": 16, "growth_rate": 4, "classes": 10}}
    arrays[name][1] = value
    weights_io.save(tmp_path / "weights.npz", arrays, card)
    with pytest.raises(ValueError, match=f"(variances|finite).* in the array {name}"):
        densenet.load(tmp_path)


@pytest.mark.parametrize("value", [0.0, -0.2])
def test_deviations_that_are_none(value, small_variables, tmp_path):
    arrays = {k: np.array(v) for k, v in weights_io.flatten(small_variables).items()}
    arrays["constants/std"][:] = value
    card = {"architecture": {"depth": 16, "growth_rate": 4, "classes": 10}}
    weights_io.save(tmp_path / "weights.npz", arrays, card)
    with pytest.raises(ValueError, match="positive deviations in the array constants/std"):
        densenet.load(tmp_path)


def test_names_are_compared_before_data_is_read():
    """One array too many, and one of another shape."""
    wanted = weights_io.flatten(srnet.template())
    shapes = {name: stored.Shape(want.shape, np.dtype(np.float32)) for name, want in wanted.items()}
    for name, shape, message in (
        ("params/extra", (10**12,), "expected no array params/extra"),
        ("params/conv1/kernel", (10**12,), "expected the array params/conv1/kernel"),
    ):
        changed = {**shapes, name: stored.Shape(shape, np.dtype(np.float32))}
        file = stored.Stored(changed, lambda names: pytest.fail("read"))
        with pytest.raises(ValueError, match=message):
            weights_io.fit(file, srnet.template(), "x")


@pytest.mark.parametrize(
    "variables", [{"a": [np.ones(2), np.zeros(2)]}, {"a": 1.0}, {"a": {"b": "text"}}, {"a": None}]
)
def test_variables_that_are_no_arrays_are_not_saved(variables, tmp_path):
    for save, path in (
        (weights_io.save, tmp_path / "a.npz"),
        (weights_io.save_folder, tmp_path / "a"),
    ):
        with pytest.raises(ValueError, match="expected dicts of arrays, got"):
            save(path, variables, {})
        assert not list(tmp_path.iterdir())


def test_names_that_collide_are_not_saved(tmp_path):
    with pytest.raises(ValueError, match="two of the name a/b"):
        weights_io.save(tmp_path / "a.npz", {"a/b": np.ones(2), "a": {"b": np.zeros(2)}}, {})


@pytest.mark.parametrize("text", ["[]", "3", '"a"', "null", "{", "", "\x00", "[" * 10**5])
def test_cards_that_are_none(text, path):
    np.savez(path, **random_state())
    path.with_suffix(".json").write_text(text)
    with pytest.raises(ValueError, match="expected a card in JSON"):
        densenet.load(path)


@pytest.mark.parametrize(
    "change", [{"depth": 10**9}, {"depth": -2}, {"growth_rate": 10**9}, {"classes": 0},
               {"classes": "many"}, {"depth": 16.5}, {"depth": True}]
)  # fmt: skip
def test_architectures_that_are_none(change, small_variables, tmp_path):
    architecture = {"depth": 16, "growth_rate": 4, "classes": 10, **change}
    weights_io.save(tmp_path / "weights.npz", small_variables, {"architecture": architecture})
    with pytest.raises(ValueError, match=r"expected (the architecture|a depth)"):
        densenet.load(tmp_path)


# safetensors


@pytest.fixture
def safetensors():
    return pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")


@pytest.mark.parametrize(
    ("dtype", "atol"),
    [(np.float32, 0), (np.float64, 0), (np.float16, 5e-3), (jnp.bfloat16, 4e-2)],
)
@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_safetensors(dtype, atol, prefix, safetensors, tmp_path):
    path = tmp_path / "a.safetensors"
    state = flat(lambda n, a: a if a.dtype == np.int64 else a.astype(dtype))
    safetensors.save_file({f"{prefix}{name}": a for name, a in state.items()}, path)
    params = densenet.load(path).variables["params"]
    np.testing.assert_allclose(params["head"]["bias"], random_state()["fc.bias"], atol=atol)
    assert {a.dtype for a in porting.read_state_dict(path).values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    "content",
    [b"", b"abc", b"\xff" * 20, (10**15).to_bytes(8, "little") + b"{}",
     (2).to_bytes(8, "little") + b"[]",
     (92).to_bytes(8, "little")
     + b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'.ljust(92)],
)  # fmt: skip
def test_damaged_safetensors(content, safetensors, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    refused(path, "cannot be read .*fetch it again", porting.read_state_dict, densenet.load)


def test_what_is_refused_in_safetensors(safetensors, tmp_path):
    path = tmp_path / "a.safetensors"
    state = random_state()
    for name, array, message in (
        ("bn1.running_var", -state["bn1.running_var"], "expected variances"),
        ("fc.bias", np.full(7, np.nan, "f4"), "finite"),
        ("fc.bias", np.ones(7, np.int64), "got int64"),
        ("extra", np.ones(7, "f4"), "expected no array extra"),
    ):
        safetensors.save_file({**state, name: array}, path)
        refused(path, message, densenet.load)


def test_the_package_that_is_missing_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"safetensors to read .*pip install 'ifv-jax\[safet"):
        densenet.load(path)
