"""Several lanes at once on the cores of a CPU.

XLA spreads one small network badly over two cores, and runs what one thread asks for in order. Two
threads that compute a lane each are faster by a third (measured, docs/speed.md). A lane's bits do
not depend on what is computed beside it.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax

from ifv_jax.engine import lanes

T = TypeVar("T")
R = TypeVar("R")

MOST = 4
"""Lanes at once, at most: the residuals of each are held."""


def workers(devices: lanes.Devices) -> int:
    """Returns how many lanes of a device are computed at once."""
    if not lanes.alone(devices):
        return 1
    return max(1, min(MOST, _cores() // len(devices)))


def _cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def concurrently(
    function: Callable[[T], R], items: Iterable[T], devices: lanes.Devices, *, traced: bool = False
) -> list[R]:
    """Returns the results of the function, in order; some are computed at the same time.

    Args:
      function: safe to be called by several threads.
      items: its arguments. The first call is made alone, so that everything compiles once.
      devices: where it computes. On accelerators nothing waits and the calls are made in order.
      traced: whether JAX is tracing, which has to happen in one thread.
    """
    items = list(items)
    if traced or not lanes.alone(devices):
        return [function(item) for item in items]
    many = workers(devices)
    if many == 1 or len(items) < 3:  # what is queued on the CPU would compete for its cores
        return [jax.block_until_ready(function(item)) for item in items]
    config: Any = jax.config
    wide, precision = config.jax_enable_x64, config.jax_default_matmul_precision

    def call(item: T) -> R:
        # These are settings of a thread; others that matter here belong to the arrays.
        with jax.enable_x64(wide), jax.default_matmul_precision(precision):
            return jax.block_until_ready(function(item))

    first = call(items[0])
    with ThreadPoolExecutor(many) as pool:
        return [first, *pool.map(call, items[1:])]
