"""What a run of Feature Visualization survives: kills, disks that fill, bits that flip.

    python -m benchmarks.endurance                 50 kills, 6 sizes of disk, 20 flipped bits

A small job is run undisturbed once. Then it is killed (SIGKILL) at random moments and started again
until it ends; run on disks of six sizes, too small for all or some of its checkpoints, and again
with room; and a random bit of a random file of its folder is flipped, half-way and after the end.
A case holds if what comes back in the end has the bits of the undisturbed job, or if the folder is
refused with a sentence (`InputError`). Disks are tmpfs, which wants the right to mount; without it
that part is left out, and the script says so. Takes about ten minutes on two CPU cores.

Writes results/endurance/summary.json. Bar: all cases hold.
"""

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ifv_jax as ifv
from benchmarks import summary
from benchmarks.command_line import parse
from benchmarks.start import start

SIZES_KIB = (8, 32, 96, 192, 384, 768)
SHAPE, FEATURES = (16, 16, 3), 8
CONFIG = ifv.FVConfig(adam_steps=400, lbfgs_steps=40, steps_per_call=5, batch_size=2)


class Held(NamedTuple):
    """How a kind of disturbance went."""

    kind: str
    cases: int
    same_bits: int
    refused: int  # with a sentence
    failures: list  # what did not hold, in words


def network(variables, images):
    """A convolution and what makes it nonlinear, small enough to compile in a second."""
    x = jax.lax.conv_general_dilated(
        images - 0.5, variables, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(x)


RESPONSE = ifv.make_response(network, ifv.sigmoid_pixels(SHAPE))
OBJECTIVE = ifv.make_objective(RESPONSE)


def job(folder: Path | None) -> list[np.ndarray]:
    """The job in this folder, from its beginning or from where it stopped."""
    weights = 0.4 * jax.random.normal(jax.random.key(3), (3, 3, 3, FEATURES))
    targets = ifv.sample_targets(jax.random.key(1), 6, features=FEATURES)
    found = ifv.visualize(
        OBJECTIVE, weights, targets, jax.random.key(2), config=CONFIG, run=ifv.Run(folder)
    )
    return [np.asarray(leaf) for leaf in jax.tree.leaves(found)]


def judge(kind: str, cases: Iterator[tuple[str, Callable[[], list[np.ndarray]]]], whole) -> Held:
    """Runs each case to its end and holds the result against the undisturbed one."""
    same, refused, failures, count = 0, 0, [], 0
    for name, run in cases:
        count += 1
        try:
            found = run()
        except ifv.InputError:
            refused += 1
            continue
        except Exception as error:  # what must not happen
            failures.append(f"{name}: {type(error).__name__}: {error}"[:300])
            continue
        if all(np.array_equal(a, b) for a, b in zip(found, whole, strict=True)):
            same += 1
        else:
            failures.append(f"{name}: other bits")
    held = Held(kind, count, same, refused, failures)
    print(f"{kind}: {same + refused} of {count} held ({refused} refused) {failures}", flush=True)
    return held


def killed(count: int, rng: random.Random, whole) -> Held:
    """`count` kills; a job that ended in spite of them is checked, and another one is begun.

    Moments are spread evenly over the time that an undisturbed process takes after its start.
    """
    with tempfile.TemporaryDirectory() as folder:
        process = _begin(Path(folder))
        began = time.monotonic()
        process.communicate()
        duration = time.monotonic() - began
    jobs, kills, failures = 0, 0, []
    while kills < count:
        with tempfile.TemporaryDirectory() as folder:
            here, since = Path(folder), kills
            process = _begin(here)
            while kills < count and _interrupt(process, rng.uniform(0, duration)):
                kills += 1
                process = _begin(here)
            _, errors = process.communicate()
            jobs += 1
            name = f"job {jobs}, {kills - since} kills"
            if process.returncode:
                failures.append(f"{name}: {errors[-300:]}")
                continue
            with np.load(here / "found.npz") as found:
                if not all(np.array_equal(found[f"arr_{i}"], a) for i, a in enumerate(whole)):
                    failures.append(f"{name}: other bits")
    print(f"kills: {kills} in {jobs} jobs, {len(failures)} of these failed {failures}", flush=True)
    return Held("kills", kills, kills if not failures else 0, 0, failures)


def _begin(folder: Path) -> subprocess.Popen:
    """A process that does the job in this folder, as soon as it is ready to."""
    (folder / "started").unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.endurance", "--work", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (folder / "started").exists() and process.poll() is None:
        time.sleep(0.01)
    return process


def _interrupt(process: subprocess.Popen, after: float) -> bool:
    """Kills the process after so many seconds; False if it had ended before."""
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def filled(whole) -> Held | None:
    """The job on disks of the sizes above, then with room: the same bits after both."""

    def on_disk(size: int):
        def run() -> list[np.ndarray]:
            with disk(size) as folder:
                try:
                    small = job(folder)
                except ifv.InputError as error:  # at the start, before anything was computed
                    assert "can be written" in str(error), error
                    small = whole
                for a, b in zip(small, whole, strict=True):
                    assert np.array_equal(a, b), "other bits on the full disk"
                subprocess.run(["mount", "-o", "remount,size=64m", str(folder.parent)], check=True)
                return job(folder)

        return run

    try:
        with disk(64):
            pass
    except (OSError, subprocess.CalledProcessError):
        print("disks: left out, nothing may be mounted here", flush=True)
        return None
    return judge("disks", ((f"{size} KiB", on_disk(size)) for size in SIZES_KIB), whole)


@contextmanager
def disk(size_kib: int) -> Iterator[Path]:
    """A folder on a disk of its own of this size."""
    with tempfile.TemporaryDirectory() as mounted:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", mounted]
        subprocess.run(command, check=True, capture_output=True)
        try:
            yield Path(mounted) / "run"
        finally:
            subprocess.run(["umount", mounted], check=True)


def flipped(count: int, rng: random.Random, whole) -> Held:
    """One bit of the folder, of a job that has ended or is half-way."""
    with tempfile.TemporaryDirectory() as kept:
        ended, halfway = Path(kept) / "ended", Path(kept) / "halfway"
        job(ended)
        _halfway(halfway)

        def one(number: int):
            def run() -> list[np.ndarray]:
                with tempfile.TemporaryDirectory() as folder:
                    here = Path(folder) / "run"
                    shutil.copytree((ended, halfway)[number % 2], here)
                    _flip(here, rng)
                    return job(here)

            return run

        return judge("bits", ((f"bit {i}", one(i)) for i in range(count)), whole)


def _halfway(folder: Path) -> None:
    """A job that stopped in its second group."""
    from ifv_jax.engine import adam

    call, calls = adam._step, 0

    def stop(*arguments):
        nonlocal calls
        calls += 1
        if calls > 600:
            raise KeyboardInterrupt
        return call(*arguments)

    adam._step = stop
    try:
        job(folder)
    except KeyboardInterrupt:
        pass
    finally:
        adam._step = call


def _flip(folder: Path, rng: random.Random) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
    file = rng.choice(files)  # every file alike: cards are small, and matter as much
    content = bytearray(file.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << (bit % 8)
    file.write_bytes(content)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = parse(
        __doc__,
        arguments,
        "seed",
        kills={"type": int, "default": 50, "help": "processes killed"},
        flips={"type": int, "default": 20, "help": "bits flipped"},
        work={"help": "only run the job, in this folder"},
        out={"default": Path("results/endurance")},
    )
    start()
    if options.work is not None:
        (options.work / "started").touch()
        np.savez(options.work / "found.npz", *job(options.work / "run"))
        return
    began = time.monotonic()
    rng = random.Random(options.seed)
    whole = job(None)
    tried = (
        killed(options.kills, rng, whole),
        filled(whole),
        flipped(options.flips, rng, whole),
    )
    held = [one for one in tried if one is not None]
    path = summary.write(
        options.out,
        [one._asdict() for one in held],
        seed=options.seed,
        seconds=round(time.monotonic() - began),
    )
    cases = sum(one.cases for one in held)
    good = sum(one.same_bits + one.refused for one in held)
    print(f"{good} of {cases} held; wrote {path}")
    if good < cases:
        sys.exit(1)


if __name__ == "__main__":
    main()
