"""The command line of all scripts. An option has the same name and meaning in each of them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Option = dict[str, Any]
"""Arguments of `ArgumentParser.add_argument`."""

OPTIONS: dict[str, Option] = {
    "googlenet": {"metavar": "PATH", "help": "GoogLeNet's weights, see googlenet.load"},
    "densenet": {"metavar": "PATH", "help": "DenseNet's weights, see densenet.load"},
    "densenet4": {"metavar": "PATH", "help": "those of a DenseNet that never saw class 4"},
    "srnet": {"metavar": "PATH", "default": "srnet", "help": "SRNet's weights, see srnet.load"},
    "only": {"nargs": "+", "metavar": "NAME", "help": "leave all other cases out"},
    "samples": {"type": int, "help": "another number of targets a case, for a first look"},
    "adam_steps": {"type": int, "help": "another number of steps"},
    "lbfgs_steps": {"type": int, "help": "another number of steps"},
    "repeats": {"type": int, "help": "measurements, of which ratios are taken"},
    "no_verify": {
        "nargs": "*",
        "metavar": "NAME",
        "help": "leave re-optimization out, of these cases or of all",
    },
    "seed": {"type": int, "default": 0, "help": "of all random numbers"},
    "work": {"type": Path, "help": "folder of checkpoints: the same command goes on from there"},
    "draw": {"action": "store_true", "help": "only draw the pictures again, from records.npz"},
    "out": {"type": Path, "help": "folder of results"},
}


def parse(
    doc: str | None, arguments: Sequence[str] | None, *names: str, **changed: Option
) -> argparse.Namespace:
    """Reads a command line.

    Args:
      doc: the script's docstring; its first line is shown as help.
      arguments: those of the command line; None: this process's.
      names: options of `OPTIONS` that the script has.
      changed: options with what is different of them here, or that the script alone has.
    Returns: the values by name.
    """
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    for name in dict.fromkeys((*names, *changed)):
        option = OPTIONS.get(name, {}) | changed.get(name, {})
        parser.add_argument(f"--{name.replace('_', '-')}", **option)
    return parser.parse_args(arguments)
