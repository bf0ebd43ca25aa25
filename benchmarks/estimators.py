"""The estimators that a setting may list. Only this file asks the library to invert.

An estimator is a function with a name in `ESTIMATORS`, which is its name in `summary.json`.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import ifv_jax as ifv
from benchmarks.networks import Functions
from benchmarks.setting import CLOSED_FORM, OFF_KINKS, Setting
from benchmarks.stages import Array, Found, start_clock


class Evidence(NamedTuple):
    """Response and inner products of gradients at what was found; batch axis first."""

    response: Array  # (samples, n)
    gram: Array  # (samples, n, n), J J^T
    seconds: Array  # NaN if a part of it was done by a process that was killed


class Asked(NamedTuple):
    """All that an estimator may look at."""

    setting: Setting
    functions: Functions
    found: Found
    evidence: Evidence
    space: ifv.CriticalSpace | None  # to be searched; None: all of feature space
    run: ifv.Run


class Estimator(NamedTuple):
    """A way to predict objectives."""

    predict: Callable[[Asked], ifv.Predictions]
    label: str  # follows a case's name in tables and titles; empty for the closed form
    notes: Callable[[Setting], dict[str, Any]]


def gather(setting: Setting, functions: Functions, found: Found, run: ifv.Run) -> Evidence:
    """Asks the network about the images found, once for all estimators."""

    def compute() -> Evidence:
        began = start_clock(run, "gather")
        data = ifv.linearize_all(functions.response, functions.variables, found.v, progress=True)
        return Evidence(found.response, data.gram, np.asarray(time.monotonic() - began))

    return run.compute("evidence", Evidence, compute)


def solve(
    setting: Setting, evidence: Evidence, space: ifv.CriticalSpace | None, samples=slice(None)
) -> ifv.Predictions:
    """The closed form on a part of the samples."""
    data = ifv.Linearization(evidence.response[samples], evidence.gram[samples])
    return ifv.solve(data, cosine_power=setting.cosine_power, space=space, left_vectors=True)


def closed_form(asked: Asked) -> ifv.Predictions:
    """Opt. 3 of the paper."""
    return solve(asked.setting, asked.evidence, asked.space)


def closed_form_off_kinks(asked: Asked) -> ifv.Predictions:
    """The closed form on the directions that cross no kinks, see `ifv.Perturbations`."""
    setting, functions, v = asked.setting, asked.functions, asked.found.v
    kinks = ifv.Perturbations(setting.keys["kinks"], setting.pairs, setting.deviation)
    complement = None if asked.space is None else np.asarray(asked.space.complement)
    run = asked.run.part("off_kinks", (setting.pairs, setting.deviation, complement, v))

    def compute() -> ifv.Predictions:
        return ifv.invert(
            functions.response,
            functions.variables,
            v,
            kinks=kinks,
            space=asked.space,
            cosine_power=setting.cosine_power,
            left_vectors=True,
            progress=True,
        )

    return run.compute("predicted", ifv.Predictions, compute)


ESTIMATORS = {
    CLOSED_FORM: Estimator(closed_form, "", lambda setting: {}),
    OFF_KINKS: Estimator(
        closed_form_off_kinks,
        "off kinks",
        lambda setting: {"pairs": setting.pairs, "deviation": setting.deviation},
    ),
}


def titled(name: str, estimator: str) -> str:
    """A case's name, followed by the label of its estimator."""
    label = ESTIMATORS[estimator].label
    return f"{name}, {label}" if label else name
