"""Volumes as people have them, and damaged: what is read is right, what is not says its path."""

import bz2
import gzip
import json
import zipfile

import numpy as np
import pytest

from models.training import srnet_data, volumes

SHAPE = (4, 5, 6)


def ramp(dtype=np.uint8) -> np.ndarray:
    return np.arange(120).reshape(SHAPE).astype(dtype)


def facts(path, **content):
    path.parent.joinpath(f"{path.name.partition('.')[0]}.json").write_text(json.dumps(content))


def is_ramp(path, spacing=(1, 1, 1), name="ramp", atol=1e-6):
    volume = volumes.read(path)
    assert volume.name == name and volume.spacing == spacing
    assert volume.values.dtype == np.float32
    np.testing.assert_allclose(volume.values, ramp() / 119, atol=atol)
    return volume


def refused(path, *words, exception=ValueError):
    """Alone and in its folder, with the path."""
    for read in (lambda: volumes.read(path), lambda: volumes.read_folder(path.parent)):
        with pytest.raises(exception) as error:
            read()
        for word in (str(path), *words):
            assert word in str(error.value), error.value


def npy_header(shape, dtype="<f4") -> bytes:
    import io

    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


# Kinds of numbers


@pytest.mark.parametrize(
    "dtype",
    ["u1", "i1", "<u2", ">u2", "<i2", ">i2", "<u4", ">i4", "<u8", "<i8", ">i8", "<f2", ">f2",
     "<f4", ">f4", "<f8", ">f8", "g"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".raw"])
def test_numbers(dtype, suffix, tmp_path):
    path, array = tmp_path / f"ramp{suffix}", ramp(dtype)
    if suffix == ".npy":
        np.save(path, array)
    elif suffix == ".npz":
        np.savez_compressed(path, volume=array)
    else:
        array.tofile(path)
        facts(path, shape_zyx=SHAPE, dtype=dtype, spacing_xyz=[1, 2, 3])
    is_ramp(path, (1, 2, 3) if suffix == ".raw" else (1, 1, 1))


def test_truth_values(tmp_path):
    np.save(tmp_path / "a.npy", ramp() > 50)
    volume = volumes.read(tmp_path / "a.npy")
    np.testing.assert_array_equal(volume.values, ramp() > 50)
    assert volume.isovalue == 0.5


@pytest.mark.parametrize(
    "array",
    [
        ramp(np.int64) + 2**62,
        ramp(np.int64) + np.iinfo(np.int64).min,
        ramp(np.uint64) + np.uint64(2**64 - 120),
        ramp(np.uint32) + np.uint32(2**31),
        ramp(float) * 1e-300,
        ramp(float) * 1e30,
        ramp(float) - 1e9,
        ramp(np.float32) * np.float32(2e33),
        (ramp(np.int64) - 60) * (2**63 // 60),
        np.asfortranarray(ramp()),
        ramp()[None],
        ramp()[..., None],
        ramp()[None, None],
        ramp()[::-1].copy()[::-1],
    ],
    ids=range(14),
)
def test_ranges_and_layouts(array, tmp_path):
    np.save(tmp_path / "ramp.npy", array)
    is_ramp(tmp_path / "ramp.npy", atol=2e-3 if (np.abs(array) > 2**62).any() else 1e-6)


def test_isovalues_of_large_integers(tmp_path):
    path = tmp_path / "ramp.npy"
    np.save(path, ramp(np.int32) + 2**30)
    facts(path, isovalue=2**30 + 30)
    assert is_ramp(path).isovalue == pytest.approx(30 / 119, abs=1e-6)


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.full(SHAPE, 7), "varies"),
        (np.zeros(SHAPE, bool), "varies"),
        (np.where(ramp() == 3, np.nan, ramp()), "finite"),
        (np.where(ramp() == 3, np.inf, ramp()), "finite"),
        (np.where(ramp() == 3, -np.inf, ramp()), "finite"),
        (np.where(ramp() == 3, 3e38, ramp()).astype("f4"), "no data"),
        (np.linspace(-3e38, 3e38, 120).reshape(SHAPE).astype("f4"), "no data"),
        (np.full(SHAPE, 3e38, "f4"), "no data"),
        (np.where(ramp() == 3, -1e300, ramp()), "no data"),
        (ramp() + 1j, "real numbers"),
        (ramp().astype("c8"), "real numbers"),
        (ramp().astype("U3"), "real numbers"),
        (ramp().astype("S3"), "real numbers"),
        (ramp().astype("m8[s]"), "real numbers"),
        (np.zeros(SHAPE, [("x", "f4"), ("y", "f4")]), "no plain number"),
        (ramp()[0], "not shape (5, 6)"),
        (ramp()[:1], "not shape (1, 5, 6)"),
        (np.stack([ramp()] * 3, -1), "not shape (4, 5, 6, 3)"),
        (np.stack([ramp()] * 2), "not shape (2, 4, 5, 6)"),
        (np.zeros((0, 5, 6)), "not shape (0, 5, 6)"),
        (np.float32(3), "not shape ()"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_what_is_no_volume(array, word, suffix, tmp_path):
    path = tmp_path / f"ramp{suffix}"
    np.savez(path, volume=array) if suffix == ".npz" else np.save(path, array)
    refused(path, word)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_python_objects_are_not_opened(suffix, tmp_path):
    path, array = tmp_path / f"ramp{suffix}", np.full(SHAPE, None)
    if suffix == ".npz":
        np.savez(path, allow_pickle=True, volume=array)
    else:
        np.save(path, array, allow_pickle=True)
    refused(path, "no plain number")


# JSON


@pytest.mark.parametrize(
    "spacing",
    [[1, 2, np.nan], [1, 0, 1], [1, -1, 1], [1, 2], [1, 2, 3, 4], [], 1, "123", "1,2,3", "abc",
     ["1", "2", "3"], [1, 2, None], [1, 2, True], [1, 2, [3]], [1, 2, np.inf], [1, 2, 1e300],
     [1, 2, 1e-40], {"x": 1, "y": 2, "z": 3}, None, [10**400, 1, 1]],
    ids=ascii,
)  # fmt: skip
def test_spacings_that_are_none(spacing, tmp_path):
    path = tmp_path / "ramp.npy"
    np.save(path, ramp())
    facts(path, spacing_xyz=spacing)
    refused(path, "spacing_xyz")


@pytest.mark.parametrize(
    "isovalue", [np.nan, np.inf, "30", "high", [30], {}, True, 0, 119, -1, 500, 1e300, 10**400]
)
def test_isovalues_that_are_none(isovalue, tmp_path):
    path = tmp_path / "ramp.npy"
    np.save(path, ramp())
    facts(path, isovalue=isovalue)
    refused(path, "isovalue")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"shape_zyx": [4, 5, 7], "dtype": "u1"}, "140 bytes, and the file has 120"),
        ({"shape_zyx": [4, 5, 6], "dtype": "u2"}, "240 bytes"),
        ({"shape_zyx": [4, 5, 6], "dtype": "<f8"}, "960 bytes"),
        ({"shape_zyx": [10**9, 10**9, 10**9], "dtype": "u1"}, "bytes, and the file has 120"),
        ({"shape_zyx": [4, 30], "dtype": "u1"}, "three whole numbers"),
        ({"shape_zyx": [4, 5.0, 6], "dtype": "u1"}, "three whole numbers"),
        ({"shape_zyx": [-4, -5, 6], "dtype": "u1"}, "three whole numbers"),
        ({"shape_zyx": [4, 5, True], "dtype": "u1"}, "three whole numbers"),
        ({"shape_zyx": "4,5,6", "dtype": "u1"}, "three whole numbers"),
        ({"shape_zyx": [-1, 5, 6], "dtype": "u1"}, "three whole numbers"),
        ({"shape_zyx": [4, 5, 6], "dtype": "byte-sized"}, "byte-sized"),
        ({"shape_zyx": [4, 5, 6], "dtype": "O"}, "real numbers"),
        ({"shape_zyx": [4, 5, 6], "dtype": "c8"}, "real numbers"),
        ({"shape_zyx": [4, 5, 6], "dtype": 3}, "real numbers"),
        ({"shape_zyx": [4, 5, 6]}, "shape_zyx and dtype are wanted in ramp.json"),
        ({"dtype": "u1"}, "shape_zyx and dtype are wanted"),
        ({"shape": [4, 5, 6], "dtype": "u1"}, "ramp.json says shape, which is none of"),
        ({"spacing": [1, 1, 1]}, "says spacing, which is none of"),
        ({"iso_value": 3}, "says iso_value"),
        ([1, 2], "no JSON of names and values"),
        ("text", "no JSON of names and values"),
        (None, "no JSON of names and values"),
    ],
)
def test_json_beside_a_raw_file(content, word, tmp_path):
    path = tmp_path / "ramp.raw"
    ramp().tofile(path)
    path.with_suffix(".json").write_text(json.dumps(content))
    refused(path, word)


@pytest.mark.parametrize("name", ["ramp.json", "volumes.json"])
@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "\x00", '{"ramp": 3}', '{"ramp": []}', "[" * 10**5]
)
def test_damaged_json(name, text, tmp_path):
    if name == "ramp.json" and "ramp" in text:
        return
    np.save(tmp_path / "ramp.npy", ramp())
    (tmp_path / name).write_text(text)
    refused(tmp_path / "ramp.npy", name)


def test_bytes_that_are_no_text(tmp_path):
    np.save(tmp_path / "ramp.npy", ramp())
    (tmp_path / "ramp.json").write_bytes(b"\xff\xfe{")
    refused(tmp_path / "ramp.npy", "ramp.json")


@pytest.mark.parametrize("shape", [[6, 5, 4], [4, 6, 5], [2, 10, 6]])
def test_a_shape_that_contradicts_the_array(shape, tmp_path):
    np.save(tmp_path / "ramp.npy", ramp())
    facts(tmp_path / "ramp.npy", shape_zyx=shape)
    refused(tmp_path / "ramp.npy", "shape_zyx is", "(4, 5, 6)")


# Files


@pytest.mark.parametrize("name", ["ramp.RAW", "ramp.Raw", "ramp.NPY", "ramp.Npz"])
def test_capital_suffixes(name, tmp_path):
    path = tmp_path / name
    with path.open("wb") as file:
        if name.lower().endswith("npz"):
            np.savez(file, volume=ramp())
        elif name.lower().endswith("npy"):
            np.save(file, ramp())
        else:
            file.write(ramp().tobytes())
            facts(path, shape_zyx=SHAPE, dtype="uint8")
    is_ramp(path)
    (found,) = volumes.read_folder(tmp_path)
    assert found.name == "ramp"


def test_names_with_odd_characters(tmp_path):
    folder = tmp_path / "a[b] c*d\\e"
    folder.mkdir()
    np.save(folder / "ramp v1.2.npy", ramp())
    is_ramp(folder / "ramp v1.2.npy", name="ramp v1.2")
    (found,) = volumes.read_folder(folder)
    assert found.name == "ramp v1.2"


def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "ramp.npy", ramp())
    is_ramp("~/ramp.npy")
    assert len(volumes.read_folder("~")) == 1
    with pytest.raises(ValueError, match="path on this machine"):
        volumes.read("s3://bucket/ramp.npy")


@pytest.mark.parametrize("name", ["volume", "data", "arr_0", "x"])
def test_one_array_of_any_name(name, tmp_path):
    np.savez(tmp_path / "ramp.npz", **{name: ramp()})
    is_ramp(tmp_path / "ramp.npz")


def test_several_arrays(tmp_path):
    path = tmp_path / "ramp.npz"
    np.savez(path, volume=ramp(), mask=ramp() > 3)
    is_ramp(path)
    for others in ({"a": ramp(), "b": ramp()}, {"volume": ramp(), "spacing": np.ones(3)},
                   {"volume": ramp(), "isovalue": np.ones(())}, {"x": ramp(), "y": 1}):  # fmt: skip
        np.savez(path, **others)
        refused(path, "one array called volume", *others)
    np.savez(path)
    refused(path, "no array")


@pytest.mark.parametrize("shape", [(10**13,), (10**5, 10**5, 10**5), (2**62, 4, 2), (4, 5, 7)])
def test_headers_that_claim_more_than_is_there(shape, tmp_path):
    (tmp_path / "a.npy").write_bytes(npy_header(shape) + bytes(480))
    refused(tmp_path / "a.npy", "and 480 are there")
    (tmp_path / "a.npy").unlink()
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("volume.npy", npy_header(shape) + bytes(480))
    refused(tmp_path / "a.npz", "and 480 are there")


def test_a_file_that_unpacks_to_much_more_is_not_read(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file,
        file.open("volume.npy", "w") as member,
    ):
        member.write(npy_header((300, 1024, 1024), "|u1"))
        for _ in range(300):
            member.write(bytes(1 << 20))
    refused(tmp_path / "a.npz", "nearly all of it the same number")


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".nrrd", ".nhdr", ".nii", ".nii.gz", ".raw"])
@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"NRRD0004\n", b"NRRD0004\ntype: float\n\n", b"\x93NUMPY", b"PK\x03\x04",
     b"\x1f\x8b\x08", bytes(1000)],
)  # fmt: skip
def test_damaged_files(suffix, content, tmp_path):
    if suffix in (".nrrd", ".nhdr"):
        pytest.importorskip("nrrd", reason="pynrrd is not installed")
    if suffix.startswith(".nii"):
        pytest.importorskip("nibabel", reason="nibabel is not installed")
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    np.save(tmp_path / "good.npy", ramp())
    refused(path, "none that can be read")


def test_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected volumes"):
        volumes.read_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        volumes.read(tmp_path)
    for name in ("b.npy", "a.NPY", "._a.npy"):
        with (tmp_path / name).open("wb") as file:
            np.save(file, ramp())
    (tmp_path / "c.npy").mkdir()
    (tmp_path / "readme.md").write_text("hello")
    assert [v.name for v in volumes.read_folder(tmp_path)] == ["a", "b"]
    np.savez(tmp_path / "b.npz", volume=ramp())
    with pytest.raises(ValueError, match=r"one file for each volume .*b\.npy, b\.npz"):
        volumes.read_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "converter"),
    [("a.vti", "pyvista"), ("a.VTI", "pyvista"), ("a.vtk", "pyvista"), ("a.mha", "SimpleITK"),
     ("a.mhd", "SimpleITK"), ("a.dcm", "SimpleITK"), ("a.tif", "tifffile"), ("a.txt", ".nrrd")],
)  # fmt: skip
def test_other_kinds_name_a_converter(name, converter, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"<VTKFile>")
    with pytest.raises(ValueError, match=r"expected a file \.npz") as error:
        volumes.read(path)
    assert converter in str(error.value) and str(path) in str(error.value)
    np.save(tmp_path / "b.npy", ramp())
    if name in ("a.txt", "a.tif"):  # which may be anything
        assert len(volumes.read_folder(tmp_path)) == 1
        return
    with pytest.raises(ValueError, match=converter):
        volumes.read_folder(tmp_path)
    np.save(tmp_path / "a.npy", ramp())  # converted
    assert len(volumes.read_folder(tmp_path)) == 2


# NRRD, written here: pynrrd's writer calls a deprecated function of Python


@pytest.fixture
def nrrd():
    return pytest.importorskip("nrrd", reason="pynrrd is not installed")


def nrrd_header(sizes=(6, 5, 4), kind="uint8", encoding="raw", **fields) -> bytes:
    lines = {"type": kind, "dimension": len(sizes), "sizes": " ".join(map(str, sizes)),
             "encoding": encoding, "endian": "little", **fields}  # fmt: skip
    text = "".join(f"{name.replace('_', ' ')}: {value}\n" for name, value in lines.items())
    return f"NRRD0005\n{text}\n".encode()


PACK = {"raw": bytes, "gzip": gzip.compress, "gz": gzip.compress, "bzip2": bz2.compress}


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("name", ["ramp.nrrd", "ramp.NRRD", "ramp.nhdr", "ramp.NHDR"])
def test_nrrd(encoding, name, nrrd, tmp_path):
    data = PACK[encoding](ramp().tobytes())
    fields = {"encoding": encoding, "spacings": "3 2 1"}
    if name.lower().endswith("nhdr"):
        (tmp_path / "ramp.raw").write_bytes(data)
        (tmp_path / name).write_bytes(nrrd_header(**fields, data_file="ramp.raw"))
    else:
        (tmp_path / name).write_bytes(nrrd_header(**fields) + data)
    is_ramp(tmp_path / name, (3, 2, 1))
    (found,) = volumes.read_folder(tmp_path)  # the data file is no volume of its own
    assert found.spacing == (3, 2, 1)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("short", "<i2"), ("float", "<f4"), ("double", "<f8"), ("uint", "<u4"), ("int64", "<i8")],
)
def test_types_of_nrrd(kind, dtype, nrrd, tmp_path):
    path = tmp_path / "ramp.nrrd"
    path.write_bytes(nrrd_header(kind=kind) + ramp(dtype).tobytes())
    is_ramp(path)
    path.write_bytes(nrrd_header(kind=kind, endian="big") + ramp(dtype).byteswap().tobytes())
    is_ramp(path)


AXES = "(2,0,0) (0,1,0) (0,0,1)"


def test_space_directions_of_nrrd(nrrd, tmp_path):
    path = tmp_path / "ramp.nrrd"
    directions = {"space_dimension": 3, "space_directions": "(0,0,2) (3,0,4) (1,0,0)"}
    path.write_bytes(nrrd_header(**directions) + ramp().tobytes())
    is_ramp(path, (2, 5, 1))
    path.write_bytes(
        nrrd_header((1, 6, 5, 4), space_dimension=3, space_directions=f"none {AXES}")
        + ramp().tobytes()
    )
    is_ramp(path, (2, 1, 1))


@pytest.mark.parametrize(
    ("header", "data", "word"),
    [
        ({}, ramp().tobytes()[:-1], ""),
        ({}, ramp().tobytes() + b"x", ""),
        ({"sizes": (6, 5, 7)}, ramp().tobytes(), ""),
        ({"sizes": (100000, 100000, 100000)}, ramp().tobytes(), "in a file of 120 bytes"),
        ({"sizes": (6, 5, -4)}, ramp().tobytes(), "sizes"),
        ({"sizes": (6, 20)}, ramp().tobytes(), "not shape (20, 6)"),
        ({"sizes": (3, 6, 5, 4)}, ramp().tobytes() * 3, "not shape (4, 5, 6, 3)"),
        ({"kind": "block"}, ramp().tobytes(), ""),
        ({"kind": "kitten"}, ramp().tobytes(), ""),
        ({"encoding": "zip"}, ramp().tobytes(), ""),
        ({"encoding": "gzip"}, ramp().tobytes(), ""),
        ({"encoding": "gzip"}, gzip.compress(ramp().tobytes())[:-9], ""),
        ({"encoding": "gzip"}, gzip.compress(bytes(10**7)), "more data than"),
        ({"encoding": "bzip2"}, bz2.compress(bytes(10**7)), "more data than"),
        ({"spacings": "1 nan 1"}, ramp().tobytes(), "spacing"),
        ({"spacings": "1 0 1"}, ramp().tobytes(), "spacing"),
        ({"spacings": "1 2"}, ramp().tobytes(), "spacing"),
        ({"dimension": 2}, ramp().tobytes(), ""),
        ({"data_file": "absent.raw"}, b"", "absent.raw"),
        ({"data_file": "LIST"}, b"", "LIST"),
    ],
)
def test_damaged_nrrd(header, data, word, nrrd, tmp_path):
    path = tmp_path / "ramp.nrrd"
    path.write_bytes(nrrd_header(**header) + data)
    refused(path, "none that can be read", word)


# NIfTI


@pytest.fixture
def nibabel():
    return pytest.importorskip("nibabel", reason="nibabel is not installed")


@pytest.mark.parametrize("name", ["ramp.nii", "ramp.nii.gz", "ramp.NII.GZ", "ramp.Nii"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">f4"])
def test_nifti(name, version, dtype, nibabel, tmp_path):
    kind = (nibabel.Nifti1Image, nibabel.Nifti2Image)[version - 1]
    image = kind(ramp(dtype).T, np.diag([3.0, 2, 1, 1]))
    content = image.to_bytes()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.lower().endswith("gz") else content)
    is_ramp(path, (3, 2, 1))
    (found,) = volumes.read_folder(tmp_path)
    assert found.name == "ramp"
    (tmp_path / "ramp.json").write_text(json.dumps({"spacing_xyz": [1, 1, 4], "isovalue": 30}))
    assert is_ramp(path, (1, 1, 4)).isovalue == pytest.approx(30 / 119)


def test_slope_and_axes_of_nifti(nibabel, tmp_path):
    image = nibabel.Nifti1Image(ramp(np.int16).T[..., None], np.diag([3.0, 2, 1, 1]))
    image.header.set_slope_inter(0.5, -3)
    path = tmp_path / "ramp.nii"
    path.write_bytes(image.to_bytes())
    (tmp_path / "ramp.json").write_text(json.dumps({"isovalue": 12}))
    assert is_ramp(path, (3, 2, 1)).isovalue == pytest.approx(30 / 119)


def test_damaged_nifti(nibabel, tmp_path):
    content = nibabel.Nifti1Image(ramp().T, np.eye(4)).to_bytes()
    path = tmp_path / "a.nii"
    lying = bytearray(content)
    lying[42:48] = np.array([32000] * 3, "<i2").tobytes()
    for damaged, word in (
        (content[:-1], "are there"),
        (content[:300], ""),
        (bytes(lying), "are there"),
        (nibabel.Nifti1Image(np.stack([ramp().T] * 2, -1), np.eye(4)).to_bytes(), "not shape"),
        (nibabel.Nifti1Image((ramp() + 1j).T, np.eye(4)).to_bytes(), "real numbers"),
        (content[:84] + np.float32(0).tobytes() + content[88:], "spacing"),
        (content[:84] + np.float32(np.nan).tobytes() + content[88:], "spacing"),
    ):
        path.write_bytes(damaged)
        refused(path, "none that can be read", word)
    path.unlink()
    path = tmp_path / "a.nii.gz"
    for damaged in (gzip.compress(bytes(lying)), gzip.compress(content)[:-9],
                    gzip.compress(bytes(lying) + bytes(10**7))):  # fmt: skip
        path.write_bytes(damaged)
        refused(path, "none that can be read")


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("a.nrrd", "nrrd", "nrrd"), ("a.nhdr", "nrrd", "nrrd"), ("a.nii.gz", "nibabel", "nifti")],
)
def test_packages_that_are_missing_are_named(name, library, extra, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / name).write_bytes(b"x")
    refused(tmp_path / name, f"pip install 'ifv-jax[{extra}]'", exception=ImportError)


# Views that are kept


def test_damaged_views_are_rendered_again(tmp_path, monkeypatch):
    made = []
    pairs = srnet_data.Pairs(np.zeros((8, 8, 5), "f4"), np.ones((32, 32, 6), "f4"))
    monkeypatch.setattr(srnet_data, "_views", lambda *_: iter([made.append(1) or pairs]))
    blobs = volumes.metaballs(16)
    whole = srnet_data.views(blobs, 1, 32, 3, tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    srnet_data.views(blobs, 1, 32, 3, tmp_path)
    assert len(made) == 1
    for i, damaged in enumerate((b"", content[:-30], content[:200] + b"\1" + content[201:])):
        path.write_bytes(damaged)
        again = srnet_data.views(blobs, 1, 32, 3, tmp_path)
        np.testing.assert_array_equal(again.high, whole.high)
        assert len(made) == i + 2 and path.read_bytes() == content
