"""The check that a run continues with the function it began with, even if the program changed.

A refactored network, or another version of JAX, leads to another traced program that may still
compute the same function. So a run records the hash of its program, and the responses and gradients
at a few fixed points. A program that is new to the run must give the same results there.
"""

import json
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ifv_jax.checks import InputError
from ifv_jax.engine import storage
from ifv_jax.engine.runs import Run

RESPONSE_TOLERANCE = 3e-5
"""Largest relative difference of responses: ten times the rounding of other compilers."""

GRADIENT_TOLERANCE = 1e-3
"""Largest relative difference of gradients: rounding can switch a few ReLUs and maxima."""

_STAGE = "fixed_points"


class Points(NamedTuple):
    """The results of a program at the fixed points; host arrays, points first.

    Attributes:
      response: (points, n).
      gradient: gradient of the significance, (points, m).
    """

    response: Float[np.ndarray, "points n"]
    gradient: Float[np.ndarray, "points m"]


def check(run: Run, program: str, evaluate: Callable[[], Points]) -> None:
    """Checks that a run is new, was made by this program, or by one that gives the same results.

    Args:
      run: the run, which keeps one record per host.
      program: hash of the program, see `fingerprints.program`.
      evaluate: computes the points. It is called only if the run does not know the program yet.

    Raises:
      InputError: the results differ, or the record cannot be read or written.
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
    """Checks a response that was read from a run against the same response computed again.

    Args:
      run: the run.
      kept: the response that was read, (n,).
      found: the response that was computed, (n,).

    Raises:
      InputError: they differ.
    """
    off = _off(np.asarray(kept, np.float64), np.asarray(found, np.float64))
    if off > _tolerance(kept, RESPONSE_TOLERANCE):
        raise _refused(run, f"its response to an image of the run is off by {off:.1g} of it")


def _known(record) -> list[str]:
    try:
        return list(json.loads(record.read_bytes())["programs"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        return ["a damaged record"]  # The run is not new, so the programs have to be compared.


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
    """Adapts a tolerance for float32 to the dtype of a response, which may be coarser."""
    scale = float(jnp.finfo(response.dtype).eps) / float(np.finfo(np.float32).eps)
    return least * max(1.0, scale)


def _off(a: np.ndarray, b: np.ndarray) -> float:
    """Computes |a - b| / |a|. It is infinite if the shapes or the finite entries differ."""
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
