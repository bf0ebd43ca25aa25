"""`summary.json`: the one form in which every script reports, and what numbers are reduced to."""

import datetime
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from models.provenance import commit, cores, processor

PACKAGES = ("jax", "jaxlib", "flax", "optax", "jaxopt", "numpy", "scipy", "orbax-checkpoint")
FILE = "summary.json"


def write(folder: Path, cases: Sequence[dict[str, Any]], **about: Any) -> Path:
    """Writes `folder`/summary.json.

    Args:
      folder: made if absent.
      cases: what was measured, a dict for each, with its name.
      about: what holds for all of them.
    Returns: the file's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    content = {"cases": list(cases), **about, "environment": environment()}
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    return path


def spread(values) -> dict:
    """Median, 90th percentile and number of the finite values."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not values.size:
        return {"median": None, "p90": None, "count": 0}
    median, p90 = np.quantile(values, [0.5, 0.9])
    return {"median": round(float(median), 4), "p90": round(float(p90), 4), "count": values.size}


def ratio(a: list[float], b: list[float]) -> dict[str, float]:
    """a / b of paired measurements: median, 10th and 90th percentile."""
    values = np.asarray(a) / np.asarray(b)
    p10, median, p90 = np.quantile(values, [0.1, 0.5, 0.9])
    return {
        name: round(float(value), 3)
        for name, value in (("median", median), ("p10", p10), ("p90", p90))
    }


def rounded(tree: Any, digits: int = 4) -> Any:
    """Every float of a nested dict to so many significant digits."""
    if isinstance(tree, dict):
        return {name: rounded(value, digits) for name, value in tree.items()}
    return float(f"{tree:.{digits}g}") if isinstance(tree, float) else tree


def environment() -> dict:
    """The machine, the versions and the commit that produced the numbers."""
    device = jax.devices()[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "backend": jax.default_backend(),
        "devices": len(jax.devices()),
        "hardware": processor() if device.platform == "cpu" else device.device_kind,
        "cpu_cores": cores(),
        "memory_gib": _memory_gib(),
    }


def _memory_gib() -> float | None:
    try:
        kib = int(Path("/proc/meminfo").read_text().split()[1])
    except (OSError, ValueError):
        return None
    return round(kib / 2**20, 1)
