"""The origin of a number or a file of weights: the commit of the code, and the machine."""

import os
import platform
import subprocess
from pathlib import Path

import jax

ROOT = Path(__file__).parents[1]


def commit() -> str | None:
    """Asks git for the commit of the code.

    Returns:
      The hash of HEAD, with `-dirty` if tracked files outside of benchmarks/results were changed;
      None without git.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout

    try:
        head = git("rev-parse", "HEAD").strip()
        changed = git("status", "--porcelain", "--untracked-files=no", ":!benchmarks/results")
    except OSError:  # no git here
        return None
    return head + ("-dirty" if changed else "") if head else None


def processor() -> str:
    """Returns the name of the CPU according to the operating system."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # only on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def hardware() -> str:
    """Describes the devices that JAX computes on."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{jax.device_count()} x {device.device_kind}"
    return f"{processor()}, {cores()} core(s)"
