"""How much memory a call takes at most, in a process of its own."""

import argparse
import multiprocessing
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import jax

import ifv_jax as ifv
from benchmarks.networks import TABLE_1, functions, scaled_fourier
from benchmarks.setting import Setting
from benchmarks.start import start


def notes(setting: Setting, options: argparse.Namespace) -> dict[str, float]:
    """The memory that inverting one image takes, for a setting of one of the paper's layers."""
    path = getattr(options, TABLE_1[setting.name].weights)
    return {"peak_gib_of_inverting_one_image": peak(invert_one, setting.name, path)}


def peak(function: Callable, *arguments) -> float:
    """GiB that a fresh process needs at most for function(*arguments), all to be pickled."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (function, arguments))


def invert_one(layer: str, path: str) -> ifv.Predictions:
    """Loads the network of a layer of Table 1, and inverts one image of Fourier coefficients."""
    chosen = TABLE_1[layer]
    network = chosen.load(path)
    phi = scaled_fourier(network.input_shape)
    variables, response, _ = functions(network, chosen.tap, phi, chosen.aggregation)
    return ifv.invert(response, variables, phi.init(jax.random.key(0), 1))


def _measured(function: Callable, arguments: tuple) -> float:
    start()
    jax.block_until_ready(function(*arguments))
    return round(_most() / 2**30, 2)


def _most() -> int:
    """Bytes that this process has held at most; on Linux getrusage would count its parent's."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
