"""GoogLeNet's weights: the names of its arrays in Caffe's files and in torchvision's.

Caffe has names such as `conv1/7x7_s2/weight`, `inception_3a/3x3_reduce/weight` and
`loss3/classifier/weight`; torchvision has `conv1.conv.weight`,
`inception3a.branch2.0.bn.running_mean` and `fc.weight`. The auxiliary heads that both files may
contain are left out.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ifv_jax.checks import InputError, check_integer
from models import caffe, porting, weights_io
from models.porting import norm_names
from models.stored import in_memory

NAME = "GoogLeNet"
MODULES = tuple(
    f"inception{name}" for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
)
MOST_CLASSES = 100_000
AUXILIARY = ("loss1/", "loss2/", "aux1.", "aux2.")
_STEM = {
    "conv1": ("conv1/7x7_s2", "conv1"),
    "conv2_reduce": ("conv2/3x3_reduce", "conv2"),
    "conv2": ("conv2/3x3", "conv3"),
}
_BRANCHES = {  # torchvision's names; Caffe has the names of this package
    "1x1": "branch1",
    "3x3_reduce": "branch2.0",
    "3x3": "branch2.1",
    "5x5_reduce": "branch3.0",
    "5x5": "branch3.1",
    "pool_proj": "branch4.1",
}


def read(
    variant: str, path: Path, template: Callable[[int], Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the weights of a GoogLeNet.

    Args:
      variant: `bvlc` or `torchvision`.
      path: a file or a converted folder, see `googlenet.load`.
      template: number of classes -> shapes of the variables.

    Returns:
      (variables, card).

    Raises:
      ValueError: the file cannot be read, or contains another network.
    """
    if path.is_dir():
        card = weights_io.load_folder_card(path)
        found = card.get("architecture")
        found = found if isinstance(found, dict) else {}
        if found.get("name") != NAME or found.get("variant") != variant:
            raise ValueError(
                f"expected the weights of a {NAME} {variant} in {path}, got "
                f"{found.get('name', 'none')} {found.get('variant', '')}; "
                f"make the folder by: python -m models.convert {variant} FILE {path}"
            )
        return weights_io.load_folder(path, template(_classes(found.get("classes"), path))), card
    if path.suffix.lower() in (".caffemodel", ".onnx"):
        found = in_memory(caffe.read(path))
    else:
        found = porting.stored(path)
    state = found.renamed({name: name for name in found.shapes if not name.startswith(AUXILIARY)})
    names = dict(caffe_names() if variant == "bvlc" else torchvision_names())
    head = next(old for old, new in names.items() if new == "params/head/kernel")
    shape = state.shapes[head].shape if head in state.shapes else (1000,)
    classes = _classes(shape[0] if shape else None, path)
    card = {
        "architecture": {"name": NAME, "variant": variant, "classes": classes},
        "source": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    return porting.port(state, names, template(classes), path), card


def _classes(count: Any, path: Path) -> int:
    try:
        return check_integer(count, "number of classes", least=1, most=MOST_CLASSES)
    except InputError as error:
        raise ValueError(
            f"expected a network of 1 to {MOST_CLASSES} classes in {path}, got {count}; "
            "fetch the file again"
        ) from error


def caffe_names() -> Iterator[tuple[str, str]]:
    """Yields (Caffe's name, Flax name) of each array."""
    layers = {flax: caffe_name for flax, (caffe_name, _) in _STEM.items()}
    for module in MODULES:
        for branch in _BRANCHES:
            layers[f"{module}/{branch}"] = f"inception_{module[-2:]}/{branch}"
    for flax, old in layers.items():
        yield f"{old}/weight", f"params/{flax}/conv/kernel"
        yield f"{old}/bias", f"params/{flax}/conv/bias"
    yield "loss3/classifier/weight", "params/head/kernel"
    yield "loss3/classifier/bias", "params/head/bias"


def torchvision_names() -> Iterator[tuple[str, str]]:
    """Yields (torchvision's name, Flax name) of each array."""
    layers = {flax: torch_name for flax, (_, torch_name) in _STEM.items()}
    for module in MODULES:
        for branch, old in _BRANCHES.items():
            layers[f"{module}/{branch}"] = f"{module}.{old}"
    for flax, old in layers.items():
        yield f"{old}.conv.weight", f"params/{flax}/conv/kernel"
        yield from norm_names(f"{old}.bn", f"{flax}/norm")
    yield "fc.weight", "params/head/kernel"
    yield "fc.bias", "params/head/bias"
