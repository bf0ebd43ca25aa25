"""This library against PyTorch on the same machine, weights, starting points and targets.

    python -m benchmarks.vs_pytorch --googlenet PATH --densenet PATH [--repeats 5]

The two sides run in alternating processes, warm, each on all cores: one Adam step and one L-BFGS
step of Feature Visualization, inside the loop as a user runs it; a row of the Jacobian against one
pull-back; a whole inversion. Ratios are ours over PyTorch's: below 1 we are faster. In passing it
is checked that both sides reach the same significance and prediction. PyTorch is not among
the dependencies: pip install torch.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.start import start

CASES = {  # name: network, layer, batch, first and last feature
    "GN4c, batch 4": ("googlenet", "inception4c", 4, (0, 512)),
    "GN4c, batch 8": ("googlenet", "inception4c", 8, (0, 512)),
    "DNde, batch 16": ("densenet", "dense3", 16, (0, 12)),
}
SIDES = ("ours", "pytorch")


def problem(case: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(v (B, H, W, 3), targets (B, n)), the same on both sides."""
    _, _, batch, (first, last) = CASES[case]
    rng = np.random.default_rng(0)
    v = 0.01 * rng.standard_normal((batch, size, size, 3))
    t = np.maximum(rng.standard_normal((batch, last - first)), 0)
    t /= np.linalg.norm(t, axis=1, keepdims=True)
    return v.astype(np.float32), t.astype(np.float32)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the second call, and what it returned; the first one warms up."""
    function()
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


# --- this library --------------------------------------------------------------------------------


def ours(case: str, path: str, steps: dict[str, int]) -> dict[str, Any]:
    """Seconds of each path, and what the sides are compared by."""
    start()
    import jax
    import jax.numpy as jnp

    import ifv_jax as ifv
    from models import densenet, googlenet

    name, layer, batch, (first, last) = CASES[case]
    net = googlenet.load("bvlc", path) if name == "googlenet" else densenet.load(path)
    response = ifv.make_response(
        partial(net.apply, upto=layer), ifv.sigmoid_pixels(net.input_shape),
        features=range(first, last),
    )  # fmt: skip
    objective = ifv.make_objective(response)
    v, t = (jnp.asarray(a) for a in problem(case, net.input_shape[0]))

    def climb(adam: int, lbfgs: int):
        config = ifv.FVConfig(
            adam_steps=adam, lbfgs_steps=lbfgs, batch_size=batch, restarts=0,
            steps_per_call=max(adam, lbfgs),
        )  # fmt: skip
        found = ifv.visualize(
            objective, net.variables, t, jax.random.key(0), config=config, start=v
        )
        return jax.block_until_ready(found)

    adam, found = timed(lambda: climb(steps["adam"], 0))
    lbfgs, finer = timed(lambda: climb(0, steps["lbfgs"]))
    one = v[:1]
    seconds, jac = timed(lambda: jax.block_until_ready(ifv.jacobian(response, net.variables, one)))
    inversion, predicted = timed(
        lambda: jax.block_until_ready(ifv.invert(response, net.variables, one))
    )
    # One pull-back at batch 1, residuals kept, the forward pass excluded.
    r, pull = jax.jit(lambda w, v: jax.vjp(lambda v: response(w, v), v))(net.variables, one)
    pull_back = jax.jit(lambda pull, g: pull(g))
    repeat = 10
    cotangent = jnp.ones_like(r)
    pulled, _ = timed(
        lambda: [jax.block_until_ready(pull_back(pull, cotangent)) for _ in range(repeat)]
    )
    return {
        "adam_step": adam / steps["adam"],
        "lbfgs_step": lbfgs / steps["lbfgs"],
        "jacobian_row": seconds / r.shape[1],
        "pull_back": pulled / repeat,
        "inversion": inversion,
        "significance": np.asarray(found.significance).tolist(),
        "lbfgs_significance": np.asarray(finer.significance).tolist(),
        "objective": np.asarray(predicted.objective[0]).tolist(),
        "jacobian_norm": float(jnp.linalg.norm(jac.matrix)),
    }


# --- PyTorch -------------------------------------------------------------------------------------


def pytorch(case: str, path: str, steps: dict[str, int]) -> dict[str, Any]:
    """The same by `torch_fv`."""
    import torch

    from benchmarks import torch_fv
    from benchmarks.torch_side import network

    name, layer, _, (first, last) = CASES[case]
    apply, size = network(name, path, layer)
    features = slice(first, last)
    v, t = problem(case, size)
    v = torch.from_numpy(v).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    t = torch.from_numpy(t)

    def significance(v):
        with torch.no_grad():
            return torch_fv.significance(torch_fv.response(apply, v, features), t).tolist()

    adam, found = timed(lambda: torch_fv.adam(apply, features, v, t, steps["adam"]))
    lbfgs, (finer, _) = timed(lambda: torch_fv.lbfgs(apply, features, v, t, steps["lbfgs"]))
    seconds, (r, j) = timed(lambda: torch_fv.jacobian(apply, features, v[:1]))
    solve, predicted = timed(lambda: torch_fv.invert(r, j))
    return {
        "adam_step": adam / steps["adam"],
        "lbfgs_step": lbfgs / steps["lbfgs"],
        "jacobian_row": seconds / len(r),
        "inversion": seconds + solve,
        "significance": significance(found),
        "lbfgs_significance": significance(finer),
        "objective": predicted.tolist(),
        "jacobian_norm": float(j.norm()),
    }


# --- both ----------------------------------------------------------------------------------------


def run_side(side: str, case: str, options: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.vs_pytorch", "--side", side, "--case", case]
    for name in ("googlenet", "densenet", "adam_steps", "lbfgs_steps"):
        value = getattr(options, name)
        if value is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"expected {side} to finish {case}, got:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def ratio(a: list[float], b: list[float]) -> dict[str, float]:
    """Of paired measurements: median, 10th and 90th percentile."""
    values = np.asarray(a) / np.asarray(b)
    p10, median, p90 = np.quantile(values, [0.1, 0.5, 0.9])
    return {
        name: round(float(value), 3)
        for name, value in (("median", median), ("p10", p10), ("p90", p90))
    }


def agreement(a: dict[str, Any], b: dict[str, Any]) -> dict[str, float]:
    """How far the two sides' results lie apart; raises if they did not do the same."""
    significance = [
        np.median(np.abs(np.subtract(a[key], b[key])) / np.abs(b[key]))
        for key in ("significance", "lbfgs_significance")
    ]
    cosine = np.abs(np.dot(a["objective"], b["objective"]))
    angle = float(np.degrees(np.arccos(min(1.0, cosine))))
    jacobian = abs(a["jacobian_norm"] / b["jacobian_norm"] - 1)
    found = {
        "adam_significance_rel": round(float(significance[0]), 6),
        "lbfgs_significance_rel": round(float(significance[1]), 6),
        "prediction_deg": round(angle, 4),
        "jacobian_norm_rel": round(float(jacobian), 7),
    }
    if significance[0] > 0.02 or jacobian > 1e-3:
        raise RuntimeError(f"expected both sides to reach the same results, got {found}")
    return found


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--googlenet", help="BVLC weights, see googlenet.load")
    parser.add_argument("--densenet", help="the DICE checkpoint, see densenet.load")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--adam-steps", type=int, default=20)
    parser.add_argument("--lbfgs-steps", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/vs_pytorch"))
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=list(CASES), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    paths = {"googlenet": options.googlenet, "densenet": options.densenet}
    if options.side:
        run = {"ours": ours, "pytorch": pytorch}[options.side]
        steps = {"adam": options.adam_steps, "lbfgs": options.lbfgs_steps}
        print(json.dumps(run(options.case, paths[CASES[options.case][0]], steps)))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for case, (network, *_) in CASES.items():
        if paths[network] is None:
            print(f"{case}: skipped, no --{network}")
            continue
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for _ in range(options.repeats):
            for side in SIDES:
                runs[side].append(run_side(side, case, options))
        seconds = {
            side: {
                key: report.spread([one[key] for one in found])
                for key in found[0]
                if isinstance(found[0][key], float) and key != "jacobian_norm"
            }
            for side, found in runs.items()
        }
        results[case] = {
            "ratio": {
                key: ratio(
                    [one[key] for one in runs["ours"]], [one[key] for one in runs["pytorch"]]
                )
                for key in ("adam_step", "lbfgs_step", "jacobian_row", "inversion")
            },
            "row_over_pull_back": ratio(
                [one["jacobian_row"] for one in runs["ours"]],
                [one["pull_back"] for one in runs["ours"]],
            ),
            "seconds": seconds,
            "agreement": agreement(runs["ours"][0], runs["pytorch"][0]),
        }
        print(json.dumps({case: results[case]}, indent=1), flush=True)
        content = {"cases": results, "environment": report.environment()}
        (options.out / "summary.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
