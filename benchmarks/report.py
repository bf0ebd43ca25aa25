"""`summary.json`: the one form in which every script reports, and the table it prints."""

import datetime
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np

from models.provenance import commit, cores, processor

PACKAGES = ("jax", "jaxlib", "flax", "optax", "jaxopt", "numpy", "scipy", "orbax-checkpoint")
CLOSED_FORM, OFF_KINKS = "closed_form", "closed_form_off_kinks"  # estimators


@dataclass(frozen=True)
class Case:
    """One setting and one estimator, measured. Angles in degrees, over all sampled targets.

    A sample without a valid prediction counts as 90 degrees in `angle_deg` and is left out of
    `angle_valid_deg`. Angles are taken in a space of `space_dim` dimensions out of `features`.
    """

    name: str
    network: str
    layer: str
    features: int
    space_dim: int
    aggregation: str
    parametrization: str
    cosine_power: float
    estimator: str
    source: str
    samples: int
    seed: int
    adam_steps: int
    lbfgs_steps: int
    status_counts: dict
    angle_deg: dict
    angle_valid_deg: dict
    live_floor_deg: dict
    ssim: dict
    coefficients: list
    seconds: dict
    notes: dict

    @property
    def off_kinks(self) -> bool:
        """Whether directions across kinks were left out."""
        return self.estimator == OFF_KINKS


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


def rounded(tree, digits: int = 4):
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


def write(folder: Path, content: dict) -> Path:
    """Writes `content` and the environment to `folder`/summary.json and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "summary.json"
    content = content | {"environment": environment()}
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    return path


def write_cases(folder: Path, cases: Sequence[Case]) -> Path:
    """`write` for the experiments, whose tables are of one form."""
    return write(folder, {"cases": [asdict(case) for case in cases]})


def table(cases: Sequence[Case]) -> str:
    """The cases as a text table."""
    head = f"{'case':<42}{'samples':>8}{'dim':>5}{'predicted':>19}{'response':>19}{'random':>9}"
    lines = [head, f"{'':<42}{'':>8}{'':>5}{'median   p90':>19}{'median   p90':>19}{'median':>9}"]
    for case in cases:
        angle = case.angle_deg
        cells = [
            f"{angle[who]['median']:.2f} {angle[who]['p90']:>6.2f}"
            for who in ("predicted", "response")
        ]
        name = case.name + (", off kinks" if case.off_kinks else "")
        lines.append(
            f"{name:<42}{case.samples:>8}{case.space_dim:>5}{cells[0]:>19}{cells[1]:>19}"
            f"{angle['random']['median']:>9.2f}"
        )
    return "\n".join([*lines, "angles in degrees, over all sampled targets"])
