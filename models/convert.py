"""Converts a public checkpoint into an Orbax folder with its card.

    python -m models.convert torchvision googlenet-1378be20.pth weights/googlenet_torchvision
    python -m models.convert bvlc bvlc_googlenet.caffemodel weights/googlenet_bvlc

Afterwards `googlenet.load("bvlc", "weights/googlenet_bvlc")` needs neither PyTorch nor ONNX.
"""

import argparse
import datetime
from pathlib import Path

import jax

from models import googlenet, weights_io


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line.

    Args:
      arguments: the arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m models.convert",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("variant", choices=list(googlenet.VARIANTS))
    parser.add_argument("file", type=Path, help=".pth, .safetensors, .caffemodel, .onnx or .npz")
    parser.add_argument("folder", type=Path, help="a new folder")
    options = parser.parse_args(arguments)
    weights_io.check_new(options.folder)  # before the file is read
    net = googlenet.load(options.variant, options.file)
    parameters = sum(a.size for a in jax.tree.leaves(net.variables["params"]))
    card = {
        **net.card,
        "parameters": parameters,
        "input": "(B, 224, 224, 3) float32, RGB pixels in [0, 1]",
        "converted": datetime.date.today().isoformat(),
    }
    weights_io.save_folder(options.folder, net.variables, card)
    print(f"wrote {parameters:,} parameters to {options.folder}")


if __name__ == "__main__":
    main()
