"""Several hosts (`jax.distributed`): each works on its share of the groups, all end with the whole.

A host is a process. The samples are independent, so hosts meet once: when results are gathered.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np

from ifv_jax.engine import lanes

T = TypeVar("T")


def count() -> int:
    """Hosts that work together; 1 unless `jax.distributed` was initialized."""
    return jax.process_count()


def rounds(groups: int) -> int:
    """How many groups each host computes."""
    return -(-groups // count())


def owns(number: int) -> bool:
    """Whether this group is this host's to keep checkpoints of."""
    return number % count() == jax.process_index()


def gather(compute: Callable[[int], T], pieces: Sequence[tuple[np.ndarray, int]]) -> list[T]:
    """compute(number) of this host's groups, and what the other hosts made of theirs, in order.

    `pieces` are the groups as `lanes.groups` gives them; of each result, a pytree of arrays of one
    shape with the lane axis first, the real lanes are returned. In the last round hosts that are
    left over compute the last group, too, though they do not own it: that takes no longer than
    waiting. Every host has to call this.
    """
    here, hosts, groups = jax.process_index(), count(), len(pieces)
    mine = [compute(min(k * hosts + here, groups - 1)) for k in range(rounds(groups))]
    if hosts > 1:
        mine = _exchange(mine, groups)
    return [lanes.take(part, slice(0, real)) for part, (_, real) in zip(mine, pieces, strict=True)]


def _exchange(mine: list[T], groups: int) -> list[T]:
    from jax.experimental import multihost_utils  # Imported late: few need it.

    hosts = count()
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *mine)
    with jax.enable_x64(True):  # float64 stays float64
        found = multihost_utils.process_allgather(stacked)  # (hosts, rounds, ...)
    return [jax.tree.map(lambda a, n=n: a[n % hosts, n // hosts], found) for n in range(groups)]
