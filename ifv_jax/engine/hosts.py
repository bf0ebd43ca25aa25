"""Work on several hosts (`jax.distributed`): each computes some groups, and all get all results.

A host is a process. The samples are independent, so the hosts communicate only once, when results
are gathered.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np

from ifv_jax.engine import lanes

T = TypeVar("T")


def count() -> int:
    """Returns the number of hosts; 1 unless `jax.distributed` was initialized."""
    return jax.process_count()


def rounds(groups: int) -> int:
    """Returns the number of groups that each host computes.

    Args:
      groups: number of groups of all hosts together.

    Returns:
      groups / hosts, rounded up.
    """
    return -(-groups // count())


def owns(number: int) -> bool:
    """Tells whether this host keeps the checkpoints of a group.

    Args:
      number: number of the group.

    Returns:
      True on exactly one host.
    """
    return number % count() == jax.process_index()


def gather(compute: Callable[[int], T], pieces: Sequence[tuple[np.ndarray, int]]) -> list[T]:
    """Computes the groups of this host and gathers the results of all hosts. Every host calls it.

    In the last round, hosts without a group of their own compute the last group, too. That takes no
    longer than waiting.

    Args:
      compute: group number -> a pytree of arrays of one shape, lane axis first.
      pieces: the groups as `lanes.groups` returns them: (indices, number of real lanes).

    Returns:
      The results of all groups in order, without the lanes that only pad a group.
    """
    here, hosts, groups = jax.process_index(), count(), len(pieces)
    mine = [compute(min(k * hosts + here, groups - 1)) for k in range(rounds(groups))]
    if hosts > 1:
        mine = _exchange(mine, groups)
    return [lanes.take(part, slice(0, real)) for part, (_, real) in zip(mine, pieces, strict=True)]


def _exchange(mine: list[T], groups: int) -> list[T]:
    from jax.experimental import multihost_utils  # Few users need it, so it is imported late.

    hosts = count()
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *mine)
    with jax.enable_x64(True):  # float64 stays float64
        found = multihost_utils.process_allgather(stacked)  # (hosts, rounds, ...)
    return [jax.tree.map(lambda a, n=n: a[n % hosts, n // hosts], found) for n in range(groups)]
