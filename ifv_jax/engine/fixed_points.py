"""Whether a run may go on with a program that is not, line for line, the one that it began with.

A refactored network, or another version of JAX, is traced to another program and may still compute
the same function. So a run records which program it was made by, and the responses and gradients at
a few fixed points; a program that is new to it has to give the same there.
"""

import json
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax.checks import InputError
from ifv_jax.engine import storage
from ifv_jax.engine.runs import Run

RESPONSE_TOLERANCE = 3e-5
"""Difference of responses over the largest of them: ten times what other compilers round to."""

GRADIENT_TOLERANCE = 1e-3
"""Difference of gradients over their length: rounding can turn a few ReLUs and maxima."""

_STAGE = "fixed_points"


class Points(NamedTuple):
    """What a program gives at the fixed points; host arrays, points first."""

    response: np.ndarray  # (points, n)
    gradient: np.ndarray  # (points, m), of the significance


def check(run: Run, program: str, evaluate: Callable[[], Points]) -> None:
    """Raises unless the run is new, was made by this program, or by one that gives the same.

    Args:
      run: keeps the record; one per host. program: its `fingerprints.program`.
      evaluate: computes the points; called only where the run does not know the program yet.
    """
    if run.folder is None:
        return
    here = jax.process_index()
    name = "program" if here == 0 else f"program_host{here}"
    record = run.folder / f"{name}.json"
    with storage.lock(run.folder, name):
        known = _known(record)
        if program in known:
            return
        stage = f"{_STAGE}_{name}"
        found = evaluate()
        if known:
            kept = run.read(stage, Points)
            if kept is not None:
                _compare(run, kept, found)
            else:
                raise _refused(run, "no record of what the former one gave is left")
        else:
            run.forget(stage)
            run.write(stage, found)
        try:
            storage.write_whole(record, json.dumps({"programs": [*known, program]}))
        except OSError as error:
            raise InputError(
                "a folder that can be written",
                f"{run.folder} ({error.strerror or error})",
                "Choose another folder, or make room.",
            ) from error


def check_response(run: Run, kept, found) -> None:
    """Raises unless a response read from the run, (n,), is the one that was computed anew."""
    off = _off(np.asarray(kept, np.float64), np.asarray(found, np.float64))
    if off > _tolerance(kept, RESPONSE_TOLERANCE):
        raise _refused(run, f"its response to an image of the run is off by {off:.1g} of it")


def _known(record) -> list[str]:
    try:
        return list(json.loads(record.read_bytes())["programs"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        return [
            "a damaged record"
        ]  # not a new run: what it was made by is to be found by comparing


def _compare(run: Run, kept: Points, found: Points) -> None:
    for name, tolerance in (("response", RESPONSE_TOLERANCE), ("gradient", GRADIENT_TOLERANCE)):
        a, b = getattr(kept, name), getattr(found, name)
        if a.shape != b.shape:
            raise _refused(run, f"its {name}s have another shape, {b.shape} where {a.shape} was")
        for one, other in zip(a.astype(np.float64), b.astype(np.float64), strict=True):
            off = _off(one, other)
            if off > _tolerance(kept.response, tolerance):
                raise _refused(run, f"its {name}s at fixed points are off by {off:.1g} of them")


def _tolerance(response, least: float) -> float:
    """`least` is meant for float32; what is coarser has its own rounding."""
    scale = float(jnp.finfo(response.dtype).eps) / float(np.finfo(np.float32).eps)
    return least * max(1.0, scale)


def _off(a: np.ndarray, b: np.ndarray) -> float:
    """|a - b| / |a|; infinite where one of them is not finite and the other is, or is no number."""
    finite = np.isfinite(a)
    if a.shape != b.shape or (finite != np.isfinite(b)).any():
        return float("inf")
    a, b = a[finite], b[finite]
    difference, length = np.linalg.norm(a - b), np.linalg.norm(a)
    return float(difference / length) if length else float(difference)


def _refused(run: Run, why: str) -> InputError:
    return InputError(
        "the network, aggregation and parametrization that the run was made by",
        f"another program for {run.folder}: {why}",
        "Choose another folder, or go on with the program that began this one.",
    )
