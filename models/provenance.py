"""Where a number or a file of weights comes from: the commit of the code, and the machine."""

import os
import platform
import subprocess
from pathlib import Path

import jax

ROOT = Path(__file__).parents[1]


def commit() -> str | None:
    """HEAD, `-dirty` if tracked files were changed (results, which a run itself writes, aside)."""

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
    """The CPU's name as the operating system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # on Linux only
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def hardware() -> str:
    """What computes, in words."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{jax.device_count()} x {device.device_kind}"
    return f"{processor()}, {cores()} core(s)"
