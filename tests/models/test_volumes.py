"""Volumes: every kind of file, the analytic ones, and files that are none."""

import json

import numpy as np
import pytest

from models.training import volumes


def ramp():
    return np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".raw"])
def test_files(suffix, tmp_path):
    path = tmp_path / f"ramp{suffix}"
    if suffix == ".npz":
        np.savez(path, volume=ramp())
    elif suffix == ".npy":
        np.save(path, ramp())
    else:
        ramp().tofile(path)
    facts = {"shape_zyx": [4, 5, 6], "dtype": "uint8", "spacing_xyz": [1, 2, 3], "isovalue": 30}
    path.with_suffix(".json").write_text(json.dumps(facts))
    volume = volumes.read(path)
    np.testing.assert_allclose(volume.values, ramp() / 119, atol=1e-6)
    assert volume.spacing == (1, 2, 3) and volume.isovalue == pytest.approx(30 / 119)
    assert volume.name == "ramp"
    (tmp_path / "volumes.json").write_text(json.dumps({"ramp": {**facts, "isovalue": 60}}))
    path.with_suffix(".json").unlink()
    (again,) = volumes.read_folder(tmp_path)
    assert again.isovalue == pytest.approx(60 / 119)


def test_analytic_volumes():
    part = volumes.machine_part(32)
    scan = volumes.scanned(part, 0.02)
    for volume in (
        volumes.marschner_lobb(32), volumes.gyroid(32), volumes.metaballs(32), part, scan,
    ):  # fmt: skip
        assert volume.values.shape == (32, 32, 32) and volume.values.dtype == np.float32
        assert volume.values.min() == 0 and volume.values.max() == 1
        inside = (volume.values > volume.isovalue).mean()
        assert 0.01 < inside < 0.7, volume.name
    np.testing.assert_allclose(scan.values * 255, np.round(scan.values * 255), atol=1e-4)
    inner = (part.values > 0.2) & (part.values < 0.8)  # where nothing is clipped
    assert (scan.values - part.values)[inner].std() == pytest.approx(0.02, rel=0.1)
    # Marschner and Lobb's signal is mirrored in x and in y.
    values = volumes.marschner_lobb(32).values
    np.testing.assert_allclose(values, values[:, :, ::-1], atol=1e-5)
    np.testing.assert_allclose(values, values.transpose(0, 2, 1), atol=1e-5)


def test_files_that_are_no_volume(tmp_path):
    with pytest.raises(FileNotFoundError):
        volumes.read(tmp_path / "absent.npy")
    with pytest.raises(FileNotFoundError, match="expected volumes"):
        volumes.read_folder(tmp_path)
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"expected a file .npz"):
        volumes.read(tmp_path / "a.txt")
    path = tmp_path / "a.npy"
    for content, message in (
        (np.zeros((3, 3)), r"shape \(3, 3\)"),
        (np.zeros((3, 3, 3)), "varies"),
        (np.full((3, 3, 3), np.nan), "finite"),
    ):
        np.save(path, content)
        with pytest.raises(ValueError, match=message):
            volumes.read(path)
    path.write_bytes(b"no array")
    with pytest.raises(ValueError, match="none that can be read"):
        volumes.read(path)
    ramp().tofile(tmp_path / "a.raw")
    with pytest.raises(ValueError, match="shape_zyx and dtype"):
        volumes.read(tmp_path / "a.raw")
    np.save(path, ramp())
    path.with_suffix(".json").write_text(json.dumps({"isovalue": 500}))
    with pytest.raises(ValueError, match="isovalue between"):
        volumes.read(path)
