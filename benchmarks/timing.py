"""Table 1 of the paper on this machine: seconds a sample for every path and network.

    python -m benchmarks.timing [--googlenet PATH] [--densenet cifar10] [--out FOLDER]

FV is measured a step at a time, within the loops that users run, and multiplied by the paper's
numbers of steps (3,000 + 500 for GN4c, 800 + 300 else; re-optimization 500). Jacobian and
inversion are measured whole, of one sample a device, and so is Algorithm 1 on these few samples, at
one threshold. All devices work at once, and everything is compiled before it is measured. A share
of the machine is the FLOPs of a step over its seconds, over the rate of a float32 matrix product.
"""

import argparse
from pathlib import Path
from typing import Any

import jax

import ifv_jax as ifv
from benchmarks import report, workloads
from benchmarks.start import start

NAMES = {"GN4c": "googlenet", "DNcl": "densenet", "DNde": "densenet", "SRNet": "srnet"}
REOPTIMIZATION_STEPS = 500
TAU = 0.01  # of Algorithm 1


def measure(name: str, path: str, batch: int, adam: int, lbfgs: int, rate: float) -> dict[str, Any]:
    """One row of the table."""
    work = workloads.load(name, path)
    n = work.response.feature_count(work.network.variables)
    v = work.response.parametrization.init(jax.random.key(1), batch)
    t = workloads.targets(batch, n)
    adam_step = workloads.timed(lambda: workloads.climb(work, v, t, adam, 0))[0] / adam / batch
    lbfgs_step = workloads.timed(lambda: workloads.climb(work, v, t, 0, lbfgs))[0] / lbfgs / batch
    one = jax.tree.map(lambda leaf: leaf[:1], v)
    few = jax.tree.map(lambda leaf: leaf[: len(jax.local_devices())], v)
    inverted = workloads.inversion(work, few)
    data = inverted.data
    algorithm, _ = workloads.timed(
        lambda: ifv.approximate_kernel(ifv.spectra(data.gram), TAU), repeats=3
    )
    parameters = inverted.jac.matrix.shape[2]
    row, pulled = workloads.jacobian_row(work, one), workloads.pull_back(work, one)
    gflop = workloads.step_gflop(work, one)
    return {
        "features": n,
        "parameters": parameters,
        "seconds_a_sample": {
            "fv": work.adam_steps * adam_step + work.lbfgs_steps * lbfgs_step,
            "jacobian": inverted.jacobian,
            "inversion": inverted.solve,
            "reoptimization": REOPTIMIZATION_STEPS * adam_step,
            "algorithm_1": algorithm / len(data.response),
        },
        "seconds_a_step_and_sample": {"adam": adam_step, "lbfgs": lbfgs_step},
        "gflop_a_step": gflop,
        "share_of_matmul_rate": gflop / adam_step / rate,
        "jacobian_row_over_pull_back": row / pulled,
        "inversion_over_floor": inverted.solve / workloads.solve_floor(n, parameters),
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Table 1, in seconds."""
    columns = ("fv", "jacobian", "inversion", "reoptimization", "algorithm_1")
    lines = [f"{'seconds a sample':<18}" + "".join(f"{column:>16}" for column in columns)]
    for name, row in rows.items():
        cells = (f"{row['seconds_a_sample'][column]:>16.4g}" for column in columns)
        lines.append(f"{name:<18}" + "".join(cells))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--googlenet", help="BVLC weights, see googlenet.load; else GN4c is left")
    parser.add_argument("--densenet", default="cifar10", help="see densenet.load")
    parser.add_argument("--srnet", default="srnet", help="see srnet.load")
    parser.add_argument("--only", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--batch-size", type=int, default=8, help="samples optimized at once")
    parser.add_argument("--adam-steps", type=int, default=20, help="that are measured")
    parser.add_argument("--lbfgs-steps", type=int, default=10, help="that are measured")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/timing"))
    options = parser.parse_args(arguments)
    start()
    rate, copied, rows = workloads.matmul_rate(), workloads.copy_rate(), {}
    for name in options.only:
        path = getattr(options, NAMES[name])
        if path is None:
            print(f"{name}: left out, no --{NAMES[name]}", flush=True)
            continue
        rows[name] = {"weights": Path(path).stem} | measure(
            name, path, options.batch_size, options.adam_steps, options.lbfgs_steps, rate
        )
        content = {
            "rows": report.rounded(rows),
            "matmul_gflops": round(rate, 1),
            "copy_gb_a_second": round(copied, 1),
            "batch_size": options.batch_size,
            "measured_steps": {"adam": options.adam_steps, "lbfgs": options.lbfgs_steps},
        }
        report.write(options.out, content)
        print(table(rows), flush=True)


if __name__ == "__main__":
    main()
