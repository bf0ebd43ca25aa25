"""PyTorch checkpoints as people have them: wrapped, prefixed, cast, beside other things."""

import argparse
import collections
import datetime
import logging
import pathlib
import pickle
import types
import zipfile

import numpy as np
import pytest

from models import densenet, porting, state_dict
from tests.models.test_porting import random_state

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


class Config:
    """A class that no reader should make."""


def tensors(change=lambda name, tensor: tensor) -> dict:
    state = random_state()
    return {name: change(name, torch.from_numpy(np.array(a))) for name, a in state.items()}


def save(path, content):
    torch.save(content, path)
    return path


def loads(path, atol=0.0):
    """That the network at `path` has the weights of `random_state`."""
    params = densenet.load(path).variables["params"]
    state = random_state()
    kernel = state["block2.layer.1.conv2.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_allclose(params["dense2_layer2"]["conv2"]["kernel"], kernel, atol=atol)
    np.testing.assert_allclose(params["head"]["bias"], state["fc.bias"], atol=atol)
    assert params["head"]["bias"].dtype == np.float32


# Wrappers


@pytest.mark.parametrize(
    "key",
    ["state_dict", "model", "net", "model_state_dict", "module", "ema", "model_ema", "network",
     "weights", "params", "state_dict_ema", "generator", "student", "student_net"],
)  # fmt: skip
def test_state_dicts_under_a_key(key, tmp_path):
    loads(save(tmp_path / "a.pth", {"epoch": 3, key: tensors()}))


@pytest.mark.parametrize(
    "keys",
    [("model", "state_dict"), ("checkpoint", "model"), ("state_dict", "module"), ("ema", "module"),
     ("state", "net"), ("a", "b", "c")],
)  # fmt: skip
def test_state_dicts_two_levels_down(keys, tmp_path):
    content = tensors()
    for key in reversed(keys):
        content = {key: content, "epoch": 3}
    loads(save(tmp_path / "a.pth", content))


BESIDE = {
    "Namespace": argparse.Namespace(lr=0.1, out=pathlib.Path("runs"), sizes=[1, 2]),
    "SimpleNamespace": types.SimpleNamespace(lr=0.1),
    "NumPy scalars": [np.float64(0.9), np.float32(1), np.int64(3), np.bool_(True)],
    "NumPy array": np.arange(6).reshape(2, 3),
    "dates": [datetime.datetime(2020, 1, 1), datetime.date(2020, 1, 1), datetime.timedelta(1)],
    "paths": [pathlib.PurePosixPath("a/b"), pathlib.Path("c")],
    "containers": [collections.OrderedDict(a=1), collections.defaultdict(list), {1, 2}, (1, 2)],
    "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
    "optimizers": [{"state": {"0": {"exp_avg": torch.ones(3)}}}],
    "text": "hello",
}


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_what_lies_beside_a_state_dict(name, key, tmp_path):
    content = {key: tensors(), "epoch": 3, "best": 0.5, "optimizer_state": BESIDE["optimizer"]}
    loads(save(tmp_path / "a.pth", {**content, "extra": BESIDE[name]}))
    loads(save(tmp_path / "b.pth", {**content, "args": BESIDE[name]}))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_formats(protocol, zipped, tmp_path):
    content = {"model": tensors(), "args": BESIDE["Namespace"], "best": np.float64(0.9)}
    path = tmp_path / "a.pth"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    if protocol == 2:
        loads(path)
    else:  # PyTorch's reader of weights alone does not know them
        with pytest.raises(ValueError, match=r"protocol 2, .*torch\.save"):
            densenet.load(path)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pth.tar", ".ckpt", ".bin", ".PTH"])
def test_suffixes(suffix, tmp_path):
    loads(save(tmp_path / f"a{suffix}", {"model": tensors()}))


def test_counters_and_numbers_in_a_flat_dict(tmp_path):
    loads(save(tmp_path / "a.pth", {**tensors(), "epoch": 3, "n_averaged": torch.tensor(5)}))


def test_an_average_beside_the_network_is_not_used(tmp_path, caplog):
    other = tensors(lambda name, t: t * 2)
    content = {"model": tensors(), "model_ema": other}
    with caplog.at_level(logging.WARNING):
        loads(save(tmp_path / "a.pth", content))
    assert "model_ema" in caplog.text
    for key in ("ema", "ema_state_dict", "swa", "teacher"):
        loads(save(tmp_path / "a.pth", {"state_dict": tensors(), key: other}))


@pytest.mark.parametrize(
    "keys", [("generator", "discriminator"), ("model", "net"), ("model.a", "model.b")]
)
def test_several_state_dicts_are_refused(keys, tmp_path):
    content: dict = {}
    for i, key in enumerate(keys):
        inner = content
        *parents, last = key.split(".")
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = tensors(lambda name, t, i=i: t + i)
    with pytest.raises(ValueError, match=rf"expected one state dict .*{keys[0]}, .*{keys[1]}"):
        densenet.load(save(tmp_path / "a.pth", content))


@pytest.mark.parametrize(
    "content",
    [{}, {"epoch": 3}, [], 3, None, "text", torch.ones(3), [torch.ones(3)],
     {"optimizer": BESIDE["optimizer"]}, {"model": {}}, {1: torch.ones(3)}],
    ids=repr,
)  # fmt: skip
def test_no_state_dict(content, tmp_path):
    with pytest.raises(ValueError, match=r"expected a state dict in .*a\.pth, got .*torch\.save"):
        densenet.load(save(tmp_path / "a.pth", content))


# Names


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "_orig_mod.", "net.", "backbone.", "network.", "module.model.",
     "_orig_mod.module.", "module._orig_mod.", "model.net.backbone.", "model.model.",
     "net._orig_mod.module.model."],
)  # fmt: skip
def test_prefixes(prefix, tmp_path):
    state = {f"{prefix}{name}": tensor for name, tensor in tensors().items()}
    loads(save(tmp_path / "a.pth", state))
    loads(save(tmp_path / "b.pth", {"state_dict": state, "epoch": 1}))


def test_a_compiled_part(tmp_path):
    state = tensors()
    state = {name.replace("block2.", "block2._orig_mod."): t for name, t in state.items()}
    loads(save(tmp_path / "a.pth", state))
    state["block2.layer.0.bn1.weight"] = torch.ones(3)
    with pytest.raises(ValueError, match=r"_orig_mod\. alone"):
        densenet.load(save(tmp_path / "a.pth", state))


def test_a_prefix_that_some_have_is_kept(tmp_path):
    state = {f"model.{name}": tensor for name, tensor in tensors().items()}
    state["criterion.weight"] = torch.ones(3)
    with pytest.raises(ValueError, match=r"expected the array conv1\.weight"):
        densenet.load(save(tmp_path / "a.pth", state))
    assert "model.fc.bias" in porting.read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["module.a", "module.b"], ["a", "b"]),
        (["module.a", "b"], ["module.a", "b"]),
        (["module.model.a"], ["a"]),
        (["module.", "module.a"], ["module.", "module.a"]),
        (["a.num_batches_tracked", "module.b"], ["b"]),
        (["modules.a", "modules.b"], ["modules.a", "modules.b"]),
        ([], []),
    ],
)
def test_strip(names, expected):
    assert list(state_dict.strip(names, "x").values()) == expected


# Kinds of tensors


@pytest.mark.parametrize(
    ("change", "atol"),
    [
        (lambda name, t: torch.nn.Parameter(t) if t.is_floating_point() else t, 0),
        (lambda name, t: t.requires_grad_() if t.is_floating_point() else t, 0),
        (lambda name, t: t.double() if t.is_floating_point() else t, 0),
        (lambda name, t: t.half() if t.is_floating_point() else t, 5e-3),
        (lambda name, t: t.bfloat16() if t.is_floating_point() else t, 4e-2),
        (lambda name, t: t.bfloat16() if "conv" in name else t, 4e-2),
        (lambda name, t: torch.stack([t, t], -1)[..., 0], 0),  # strided
        (lambda name, t: t.flip(0).contiguous().flip(0) if t.ndim else t, 0),
        (lambda name, t: t.permute(tuple(range(t.ndim))[::-1]).contiguous().permute(
            tuple(range(t.ndim))[::-1]), 0),
        (lambda name, t: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t, 0),
        (lambda name, t: (-t).neg(), 0),
        (lambda name, t: t.numpy(), 0),
    ],
    ids=["Parameter", "grad", "double", "half", "bfloat16", "mixed", "strided", "flipped",
         "transposed", "channels_last", "negated", "numpy"],
)  # fmt: skip
def test_tensors(change, atol, tmp_path):
    loads(save(tmp_path / "a.pth", {"model": tensors(change)}), atol)
    arrays = porting.read_state_dict(tmp_path / "a.pth")
    assert {a.dtype for a in arrays.values()} == {np.dtype(np.float32)}


def dense_to(kind):
    def change(name, t):
        if name != "fc.weight":
            return t
        return kind(t)

    return change


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (lambda t: t.to_sparse(), "a sparse tensor as fc.weight"),
        (lambda t: t.to_sparse_csr(), "a sparse tensor as fc.weight"),
        (lambda t: t.to("meta"), "without numbers .* as fc.weight"),
        (lambda t: t.int(), r"float32 .*got int32 .*floating-point"),
        (lambda t: t > 0, r"float32 .*got bool"),
        (lambda t: t.to(torch.complex64), r"float32 .*got complex64"),
        (lambda t: t.double() * 1e300, "finite numbers in the array fc.weight"),
        (lambda t: t * float("nan"), "finite numbers in the array fc.weight"),
        (lambda t: torch.zeros(1).expand(10**12, 1), "fc.weight claims 3.6 TiB, more than"),
        (lambda t: t[:, :-1], "expected the array fc.weight of float32"),
        (lambda t: t.tolist(), "expected the array fc.weight .*got none"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
def test_tensors_that_are_refused(kind, message, tmp_path):
    path = save(tmp_path / "a.pth", {"model": tensors(dense_to(kind))})
    with pytest.raises(ValueError, match=message):
        densenet.load(path)


@pytest.mark.filterwarnings("ignore")
def test_quantized_tensors_are_refused(tmp_path):
    try:
        quantized = torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8)
    except (AttributeError, RuntimeError):
        pytest.skip("this PyTorch has no quantized tensors")
    with pytest.raises(ValueError, match=r"quantized tensor as fc.weight|qint8"):
        densenet.load(save(tmp_path / "a.pth", tensors(dense_to(lambda t: quantized))))


@pytest.mark.parametrize(
    "name", ["bn1.running_var", "block1.layer.0.bn2.running_var", "trans2.bn1.running_var"]
)
def test_negative_variances_are_refused(name, tmp_path):
    state = tensors()
    state[name][0] = -1e-3
    with pytest.raises(ValueError, match=f"expected variances.* in the array {name} .*got -0.001"):
        densenet.load(save(tmp_path / "a.pth", state))
    state[name][0] = 0
    densenet.load(save(tmp_path / "a.pth", state))


# Files


def test_refused_classes_are_named(tmp_path):
    for content in (
        {"model": tensors(), "config": Config()},
        {"state_dict": tensors(), "extra": [1, {"a": Config()}]},
        {"model": torch.nn.Linear(2, 3)},
        {"model": tensors(), "hook": print},
    ):
        for zipped in (True, False):
            path = tmp_path / "a.pth"
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            with pytest.raises(ValueError, match="could run any code") as error:
                densenet.load(path)
            words = ("Config", "Linear", "print")
            assert any(word in str(error.value) for word in words), error.value
            assert "weights_only=False" in str(error.value)
            assert "fetch it again" not in str(error.value)


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    mark = tmp_path / "mark"

    class Attack:
        def __reduce__(self):
            return pathlib.Path.touch, (mark,)

    for content in ({"model": tensors(), "x": Attack()}, Attack()):
        for write in (torch.save, lambda c, p: p.write_bytes(pickle.dumps(c))):
            path = tmp_path / "a.pth"
            write(content, path)
            with pytest.raises(ValueError):
                densenet.load(path)
            assert not mark.exists()


def test_damaged_files(tmp_path):
    path = save(tmp_path / "a.pth", {"model": tensors()})
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content[:100], content[100:], b"nothing", b"PK"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.pth, which cannot be read .*fetch it again"):
            densenet.load(path)
    for damaged, message in (
        (b"", "empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            densenet.load(path)


def test_a_file_that_unpacks_to_much_more_is_not_read(tmp_path):
    path = save(tmp_path / "a.pth", {"model": {"a": torch.zeros(100)}})
    packed = tmp_path / "b.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            with new.open(info.filename, "w") as member:
                if info.filename.endswith("data/0"):
                    for _ in range(300):
                        member.write(bytes(1 << 20))
                else:
                    member.write(old.read(info))
    assert packed.stat().st_size < 1e6
    with pytest.raises(ValueError, match=r"unpacks .* to 300\.0 MiB"):
        densenet.load(packed)


@pytest.mark.filterwarnings("ignore")
def test_compiled_modules(tmp_path):
    module = torch.jit.trace(torch.nn.Linear(2, 3), torch.ones(1, 2))
    torch.jit.save(module, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"TorchScript.*state_dict\(\)"):
        densenet.load(tmp_path / "a.pt")
