"""Caffe's files, written here by the readers' own packages, in both of its formats."""

import numpy as np
import pytest

from models import caffe, googlenet
from tests.models.test_googlenet import random_state


def write_caffemodel(path, state, old):
    """As Caffe did until 2014 (`old`), or as it did since."""
    net = caffe._net_message()()
    layers = {name.rpartition("/")[0] for name in state}
    for name in ["data", *sorted(layers)]:  # layers without weights are there, too
        layer = (net.layers if old else net.layer).add(name=name)
        for part in ("weight", "bias"):
            if f"{name}/{part}" in state:
                array = state[f"{name}/{part}"]
                blob = layer.blobs.add(data=array.ravel().tolist())
                if old:
                    shape = (1,) * (4 - array.ndim) + array.shape
                    blob.num, blob.channels, blob.height, blob.width = shape
                else:
                    blob.shape.dim.extend(array.shape)
    path.write_bytes(net.SerializeToString())


@pytest.mark.parametrize("old", [True, False])
def test_a_caffemodel_gives_back_its_arrays(old, tmp_path):
    state = {
        "conv/weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
        "conv/bias": np.ones(2, np.float32),
        "fc/weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fc/bias": np.zeros(2, np.float32),
    }
    write_caffemodel(tmp_path / "net.caffemodel", state, old)
    found = caffe.read(tmp_path / "net.caffemodel")
    assert set(found) == set(state)
    for name in state:
        np.testing.assert_array_equal(found[name], state[name])


def test_a_whole_googlenet(tmp_path):
    state = random_state("bvlc")
    write_caffemodel(
        tmp_path / "net.caffemodel", {**state, "loss1/fc/weight": np.ones((2, 2), np.float32)}, True
    )
    net = googlenet.load("bvlc", tmp_path / "net.caffemodel")
    kernel = net.variables["params"]["inception4c"]["3x3_reduce"]["conv"]["kernel"]
    expected = state["inception_4c/3x3_reduce/weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel, expected)


def test_an_onnx_export_gives_back_its_arrays(tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    state = {"fc_w_0": np.ones((2, 3), np.float32), "fc_b_0": np.zeros(2, np.float32)}
    tensors = [onnx.numpy_helper.from_array(a, name) for name, a in state.items()]
    tensors.append(onnx.numpy_helper.from_array(np.asarray([1, -1]), "OC2_DUMMY_1"))
    graph = onnx.helper.make_graph([], "net", [], [], tensors)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "net.onnx")
    found = caffe.read(tmp_path / "net.onnx")
    assert set(found) == {"fc/weight", "fc/bias"}
    np.testing.assert_array_equal(found["fc/weight"], state["fc_w_0"])
    (tmp_path / "net.onnx").write_bytes(b"no network at all")
    with pytest.raises(ValueError, match="cannot be read"):
        caffe.read(tmp_path / "net.onnx")


def test_damaged_files(tmp_path):
    path = tmp_path / "net.caffemodel"
    with pytest.raises(FileNotFoundError):
        caffe.read(path)
    write_caffemodel(path, {"conv/weight": np.ones((2, 3, 2, 2), np.float32)}, True)
    whole = path.read_bytes()
    for content in (b"", b"\xff" * 50, whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="expected a network of Caffe"):
            caffe.read(path)
    net = caffe._net_message()()
    net.layers.add(name="conv").blobs.add(data=[1.0, 2.0], num=1, channels=1, height=1, width=3)
    path.write_bytes(net.SerializeToString())
    with pytest.raises(ValueError, match="2 numbers in conv"):
        caffe.read(path)
