"""This library against PyTorch on the same machine, weights, starting points and targets.

    python -m benchmarks.vs_pytorch --googlenet PATH --densenet PATH [--repeats 3]

The two sides run in alternating processes, warm, each on all cores: an Adam step and an L-BFGS step
of Feature Visualization inside the loop as a user runs it, a row of the Jacobian, and the inversion
of a sample (J and the closed form). Ratios are ours over PyTorch's: below 1 we are faster. In
passing it is checked that both sides reach the same significance, J and prediction. PyTorch is not
among the dependencies: pip install torch.
"""

import argparse
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import speed, summary
from benchmarks.command_line import parse
from benchmarks.networks import TABLE_1
from benchmarks.start import start
from models.provenance import commit


class Race(NamedTuple):
    """A layer of `networks.TABLE_1`, and a batch."""

    layer: str
    batch: int
    inverted: bool  # one race of each layer does

    @property
    def option(self) -> str:
        """Which option of the command line says where the weights are."""
        return TABLE_1[self.layer].weights


RACES = {
    "GN4c, batch 4": Race("GN4c", 4, True),
    "GN4c, batch 8": Race("GN4c", 8, False),
    "DNde, batch 16": Race("DNde", 16, True),
    "DNcl, batch 16": Race("DNcl", 16, True),
}
SIDES = ("ours", "pytorch")
SECONDS = ("adam_step", "lbfgs_step", "jacobian_row", "inversion")


def problem(case: str, shape: tuple[int, ...], features: int) -> tuple[np.ndarray, np.ndarray]:
    """(v (batch, H, W, 3), targets (batch, features)), the same on both sides."""
    rng = np.random.default_rng(0)
    batch = RACES[case].batch
    v = 0.01 * rng.standard_normal((batch, *shape))
    t = np.maximum(rng.standard_normal((batch, features)), 0)
    t /= np.linalg.norm(t, axis=1, keepdims=True)
    return v.astype(np.float32), t.astype(np.float32)


def norm(j: np.ndarray) -> float:
    """The norm of a large float32 matrix (n, m), summed row by row so that no digits are lost."""
    return float(np.linalg.norm(np.linalg.norm(j, axis=1).astype(float)))


def ours(case: str, path: str, adam: int, lbfgs: int) -> dict[str, Any]:
    """Seconds a sample of each path, and what the sides are compared by."""
    start()
    layer = TABLE_1[RACES[case].layer]
    network = layer.load(path)
    work = layer.functions(network)
    n = work.response.feature_count(work.variables)
    v, t = (jax.numpy.asarray(a) for a in problem(case, network.input_shape, n))
    batch = len(v)
    first, found = speed.timed(lambda: speed.climb(work, v, t, adam, 0))
    second, finer = speed.timed(lambda: speed.climb(work, v, t, 0, lbfgs))
    result: dict[str, Any] = {
        "adam_step": first / adam / batch,
        "lbfgs_step": second / lbfgs / batch,
        "start": work.objective(work.variables, v, t).tolist(),
        "significance": found.significance.tolist(),
        "lbfgs_significance": finer.significance.tolist(),
    }
    if RACES[case].inverted:
        # A sample a device; PyTorch's two cores share one.
        inverted = speed.inversion(work, v[: len(jax.local_devices())])
        result |= {
            "jacobian_row": inverted.jacobian / n,
            "inversion": inverted.jacobian + inverted.solve,
            "objective": inverted.predictions.objective[0].tolist(),
            "residual": float(inverted.predictions.residual[0]),
            "gap": float(inverted.predictions.gap[0]),
            "jacobian_norm": norm(np.asarray(inverted.jac.matrix[0])),
        }
    return result


def pytorch(case: str, path: str, adam: int, lbfgs: int) -> dict[str, Any]:
    """The same measurements by `torch_fv`."""
    import torch  # pyright: ignore[reportMissingImports]

    from benchmarks import torch_fv
    from benchmarks.torch_side import network

    net = network(RACES[case].layer, path)
    images, t = problem(case, (net.size, net.size, 3), net.features)
    v = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    t = torch.from_numpy(t)
    batch = len(v)

    def significance(v) -> list[float]:
        with torch.no_grad():
            return torch_fv.significance(torch_fv.response(net.apply, v), t).tolist()

    first, found = speed.timed(lambda: torch_fv.adam(net.apply, v, t, adam))
    second, finer = speed.timed(lambda: torch_fv.lbfgs(net.apply, v, t, lbfgs))
    result: dict[str, Any] = {
        "adam_step": first / adam / batch,
        "lbfgs_step": second / lbfgs / batch,
        "start": significance(v),
        "significance": significance(found),
        "lbfgs_significance": significance(finer),
    }
    if RACES[case].inverted:
        jacobian, (r, j) = speed.timed(  # warm by now: it is the same backward pass
            lambda: torch_fv.jacobian(net.apply, v[:1]), warm_up=False
        )
        solve, objective = speed.timed(lambda: torch_fv.invert(r, j))
        result |= {
            "jacobian_row": jacobian / net.features,
            "inversion": jacobian + solve,
            "objective": objective.tolist(),
            "jacobian_norm": norm(j.numpy()),
        }
    return result


def run_side(side: str, case: str, number: int, options: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a process of its own; kept, so that a stopped run goes on from there."""
    path = options.work / f"{case.replace(', ', '_').replace(' ', '_')}_{side}_{number}.json"
    if path.is_file():
        return json.loads(path.read_text())
    command = [sys.executable, "-m", "benchmarks.vs_pytorch", "--side", side, "--case", case]
    for name in (RACES[case].option, "adam_steps", "lbfgs_steps"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"expected {side} to finish {case}, got:\n{done.stderr}")
    result = done.stdout.splitlines()[-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(result)
    return json.loads(result)


def agreement(a: dict[str, Any], b: dict[str, Any]) -> dict[str, float]:
    """Medians of our significance over PyTorch's; how far predictions lie apart, in degrees."""

    def over(key: str) -> float:
        return float(np.median(np.divide(a[key], b[key])))

    keys = {"at_start": "start", "adam": "significance", "lbfgs": "lbfgs_significance"}
    found = {f"significance_{name}": over(key) for name, key in keys.items()}
    if "objective" in a:
        cosine = min(1.0, abs(np.dot(a["objective"], b["objective"])))
        found["prediction_deg"] = float(np.degrees(np.arccos(cosine)))
        found["jacobian_norm"] = a["jacobian_norm"] / b["jacobian_norm"]
        found["gap"] = a["gap"]  # near 1, two solutions are as good: predictions may differ
    return found


def check(case: str, found: dict[str, float]) -> None:
    """Raises if both sides did not do the same.

    At the start and in J they agree up to round-off. Adam's first steps have the size of the
    learning rate wherever the gradient is not zero, so that round-off decides the sign where it
    nearly is, and the paths part: after some steps the significances agree to a few per cent. The
    two L-BFGS scale their first step differently, and are not compared.
    """
    limits = {"significance_at_start": 1e-3, "jacobian_norm": 1e-3, "significance_adam": 0.1}
    wrong = {key: found[key] for key in limits if abs(found.get(key, 1.0) - 1) > limits[key]}
    if found.get("gap", 1.0) < 0.95 and found["prediction_deg"] > 1:
        wrong["prediction_deg"] = found["prediction_deg"]
    if wrong:
        raise RuntimeError(f"expected both sides of {case} to agree within {limits}, got {wrong}")


def compare(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Ratios, seconds and agreement of one case."""
    measured = [key for key in SECONDS if key in runs["ours"][0]]
    times = {side: {key: [one[key] for one in runs[side]] for key in measured} for side in SIDES}
    ours, theirs = (times[side] for side in SIDES)
    return {
        "ratio": {key: summary.ratio(ours[key], theirs[key]) for key in measured},
        "seconds_a_sample": {
            side: {key: float(np.median(each)) for key, each in times[side].items()}
            for side in SIDES
        },
        "agreement": agreement(runs["ours"][0], runs["pytorch"][0]),
        "commits": sorted({one["commit"] for side in SIDES for one in runs[side]}),
    }


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    hidden = {"help": argparse.SUPPRESS}
    options = parse(
        __doc__,
        arguments,
        "googlenet",
        "densenet",
        only={"choices": list(RACES), "default": list(RACES)},
        repeats={"default": 3},
        adam_steps={"default": 20, "help": "that are measured"},
        lbfgs_steps={"default": 10, "help": "that are measured"},
        out={"default": Path("benchmarks/results/vs_pytorch")},
        work={"default": Path("results/vs_pytorch")},
        side={"choices": SIDES, **hidden},
        case={"choices": list(RACES), **hidden},
    )
    if options.side:
        run = {"ours": ours, "pytorch": pytorch}[options.side]
        path = getattr(options, RACES[options.case].option)
        result = run(options.case, path, options.adam_steps, options.lbfgs_steps)
        print(json.dumps(result | {"commit": commit()}))
        return
    start()  # for what is said of the machine; the measuring is done by other processes
    cases: list[dict[str, Any]] = []
    for name in options.only:
        option = RACES[name].option
        if getattr(options, option) is None:
            print(f"{name}: left out, no --{option}", flush=True)
            continue
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for number in range(options.repeats):
            for side in SIDES:
                runs[side].append(run_side(side, name, number, options))
        cases.append({"name": name} | summary.rounded(compare(runs)))
        print(json.dumps(cases[-1], indent=1), flush=True)
        summary.write(
            options.out,
            cases,
            repeats=options.repeats,
            measured_steps={"adam": options.adam_steps, "lbfgs": options.lbfgs_steps},
            torch=version("torch"),
        )
    for case in cases:
        check(case["name"], case["agreement"])


if __name__ == "__main__":
    main()
