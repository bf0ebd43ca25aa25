"""Table 1 of the paper on this machine: seconds a sample for every path and network.

    python -m benchmarks.timing [--googlenet PATH] [--densenet cifar10]

FV is measured a step at a time, within the loops that users run, and multiplied by the paper's
numbers of steps (3,000 + 500 for GN4c, 800 + 300 else; re-optimization 500). Jacobian and
inversion are measured whole, of one sample a device, and so is Algorithm 1 on these few samples, at
one threshold. All devices work at once, and everything is compiled before it is measured. A share
of the machine is the FLOPs of a step over its seconds, over the rate of a float32 matrix product.
"""

from pathlib import Path
from typing import Any

import jax

import ifv_jax as ifv
from benchmarks import speed, summary
from benchmarks.command_line import parse
from benchmarks.networks import REOPTIMIZATION_STEPS, TABLE_1, Layer
from benchmarks.start import start
from models.network import Network

TAU = 0.01  # of Algorithm 1


def measure(
    layer: Layer, network: Network, batch: int, adam: int, lbfgs: int, rate: float
) -> dict[str, Any]:
    """One row of the table."""
    work = layer.functions(network)
    n = work.response.feature_count(work.variables)
    v = work.response.parametrization.init(jax.random.key(1), batch)
    t = speed.targets(batch, n)
    adam_step = speed.timed(lambda: speed.climb(work, v, t, adam, 0))[0] / adam / batch
    lbfgs_step = speed.timed(lambda: speed.climb(work, v, t, 0, lbfgs))[0] / lbfgs / batch
    one = jax.tree.map(lambda leaf: leaf[:1], v)
    few = jax.tree.map(lambda leaf: leaf[: len(jax.local_devices())], v)
    inverted = speed.inversion(work, few)
    data = inverted.data
    algorithm, _ = speed.timed(
        lambda: ifv.approximate_kernel(ifv.spectra(data.gram), TAU), repeats=3
    )
    parameters = inverted.jac.matrix.shape[2]
    row, pulled = speed.jacobian_row(work, one), speed.pull_back(work, one)
    gflop = speed.step_gflop(work, one)
    return {
        "features": n,
        "parameters": parameters,
        "seconds_a_sample": {
            "fv": layer.adam_steps * adam_step + layer.lbfgs_steps * lbfgs_step,
            "jacobian": inverted.jacobian,
            "inversion": inverted.solve,
            "reoptimization": REOPTIMIZATION_STEPS * adam_step,
            "algorithm_1": algorithm / len(data.response),
        },
        "seconds_a_step_and_sample": {"adam": adam_step, "lbfgs": lbfgs_step},
        "gflop_a_step": gflop,
        "share_of_matmul_rate": gflop / adam_step / rate,
        "jacobian_row_over_pull_back": row / pulled,
        "inversion_over_floor": inverted.solve / speed.solve_floor(n, parameters),
    }


def table(cases: list[dict[str, Any]]) -> str:
    """Table 1, in seconds."""
    columns = ("fv", "jacobian", "inversion", "reoptimization", "algorithm_1")
    lines = [f"{'seconds a sample':<18}" + "".join(f"{column:>16}" for column in columns)]
    for case in cases:
        cells = (f"{case['seconds_a_sample'][column]:>16.4g}" for column in columns)
        lines.append(f"{case['name']:<18}" + "".join(cells))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = parse(
        __doc__,
        arguments,
        "googlenet",
        "srnet",
        densenet={"default": "cifar10"},
        only={"choices": list(TABLE_1), "default": list(TABLE_1)},
        batch_size={"type": int, "default": 8, "help": "samples optimized at once"},
        adam_steps={"default": 20, "help": "that are measured"},
        lbfgs_steps={"default": 10, "help": "that are measured"},
        out={"default": Path("benchmarks/results/timing")},
    )
    start()
    rate, copied = speed.matmul_rate(), speed.copy_rate()
    cases: list[dict[str, Any]] = []
    for layer in (TABLE_1[name] for name in options.only):
        path = getattr(options, layer.weights)
        if path is None:
            print(f"{layer.name}: left out, no --{layer.weights}", flush=True)
            continue
        row = measure(
            layer,
            layer.load(path),
            options.batch_size,
            options.adam_steps,
            options.lbfgs_steps,
            rate,
        )
        cases.append(summary.rounded({"name": layer.name, "weights": Path(path).stem} | row))
        summary.write(
            options.out,
            cases,
            matmul_gflops=round(rate, 1),
            copy_gb_a_second=round(copied, 1),
            batch_size=options.batch_size,
            measured_steps={"adam": options.adam_steps, "lbfgs": options.lbfgs_steps},
        )
        print(table(cases), flush=True)


if __name__ == "__main__":
    main()
