"""Candidates for the critical space C, found by bisection of the thresholds (Sec. 3.5).

`candidate_spaces` runs Algorithm 1 at the thresholds where the dimension changes.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from ifv_jax.checks import InputError, check_integer, check_real
from ifv_jax.critical_kernel import (
    Order,
    Spectra,
    Tree,
    approximate_kernel,
    check_spectra,
    merge_order,
)
from ifv_jax.critical_space import CriticalSpace, critical_space_from_complement


class Candidate(NamedTuple):
    """A critical space and the thresholds that give its dimension.

    Attributes:
      space: the critical space.
      tau_low: the lowest of these thresholds; `space` is the critical space of this one.
      tau_high: the thresholds are below this one.
    """

    space: CriticalSpace
    tau_low: float
    tau_high: float


def candidate_spaces(
    spectra: Spectra,
    *,
    tau_min: float = 1e-6,
    tau_max: float = 0.1,
    intervals: int = 1,
    max_removed: int | None = None,
    response: Float[ArrayLike, "samples n"] | None = None,
    order: Order = None,
    tree: Tree = "balanced",
    max_angle_deg: float = 45.0,
) -> tuple[Candidate, ...]:
    """Finds one critical space for every dimension that some threshold gives, by bisection.

    The subspace is piecewise constant in tau and changes only at the quotients sigma_ij /
    sigma_max,i. The sorted list of the quotients between tau_min and tau_max is bisected wherever
    the dimension differs at the two ends of an interval.

    The bisection may miss candidates, because the dimension is not always monotone in tau. Where
    both ends of an interval have the same dimension, its inside is not examined, and a range that
    is reported as one may consist of several. `enumerate_spaces` misses nothing.

    Args:
      spectra: singular vectors and values of N Jacobians, see `ifv_jax.spectra`.
      tau_min: smallest threshold, > 0. Quotients below it are rounding errors.
      tau_max: largest threshold, >= tau_min. Near 1 every dimension occurs.
      intervals: number of intervals to start from. More intervals cost more and miss less.
      max_removed: the largest dimension of U of interest, or None for any. Every examined threshold
        costs one run of Algorithm 1 (for 32 samples up to a second at n = 512), and every dimension
        needs about log2(N n) of them. A limit helps where U can have hundreds of dimensions.
      response: responses (N, n), from which `CriticalSpace.offset` is computed.
      order: order of merging, see `approximate_kernel`.
      tree: tree of merging, see `approximate_kernel`.
      max_angle_deg: limit on principal angles in degrees, see `approximate_kernel`.

    Returns:
      Candidates by descending dimension d. The full space is among them where U = 0 was found; U as
      the whole space (d = 0) is left out. The space of a candidate is that of its tau_low, where U
      contains the fewest vectors that do not belong to it. Where a dimension occurs in several
      ranges of tau, the widest range on a log scale is taken.

    Raises:
      InputError: a threshold, the order, the tree or the angle is not valid.
    """
    check_spectra(spectra)
    tau_min, tau_max = (
        check_real(tau, name, "a threshold > 0", above=0, do="Try 1e-6 and 0.1.")
        for name, tau in (("tau_min", tau_min), ("tau_max", tau_max))
    )
    if tau_min > tau_max:
        raise InputError("tau_min <= tau_max", f"{tau_min} and {tau_max}", "Try 1e-6 and 0.1.")
    intervals = check_integer(intervals, "intervals", least=1)
    if max_removed is not None:
        max_removed = check_integer(max_removed, "max_removed", least=0)
    quotients = spectra.quotients
    samples, n = quotients.shape
    steps = np.unique(quotients[(quotients > tau_min) & (quotients <= tau_max)])
    taus = np.concatenate([[tau_min], steps])
    limit = n - 1 if max_removed is None else min(max_removed, n - 1)
    order = merge_order(order, samples)  # a key draws one order, for all thresholds
    kernels: dict[int, np.ndarray] = {}

    def dimension(i: int) -> int:
        if i not in kernels:
            kernels[i] = approximate_kernel(
                spectra, taus[i], order=order, tree=tree, max_angle_deg=max_angle_deg
            )
        return kernels[i].shape[1]

    last = taus.size - 1
    ends = np.unique(np.linspace(0, last, min(intervals, max(last, 1)) + 1).round().astype(int))
    pending = list(itertools.pairwise(ends))
    dimension(0)
    while pending:
        low, high = pending.pop()
        if (
            dimension(low) != dimension(high)
            and high - low > 1
            and (min(dimension(low), dimension(high)) <= limit)
        ):
            middle = (low + high) // 2
            pending += [(low, middle), (middle, high)]

    # Ranges of equal dimension among the thresholds that were examined.
    seen = sorted(kernels)
    starts = [i for k, i in enumerate(seen) if k == 0 or dimension(i) != dimension(seen[k - 1])]
    edges = [*(taus[i] for i in starts), tau_max]
    widest: dict[int, tuple[float, int, float]] = {}
    for k, start in enumerate(starts):
        width = np.log(edges[k + 1] / edges[k])
        if dimension(start) not in widest or width > widest[dimension(start)][0]:
            widest[dimension(start)] = (width, start, edges[k + 1])
    return tuple(
        Candidate(
            critical_space_from_complement(kernels[start], response=response, tau=taus[start]),
            float(taus[start]),
            float(tau_high),
        )
        for u, (_, start, tau_high) in sorted(widest.items())
        if u <= limit
    )


def enumerate_spaces(spectra: Spectra, **options) -> tuple[Candidate, ...]:
    """Finds the same as `candidate_spaces` by trying every breakpoint: slow, but complete.

    Args:
      spectra: singular vectors and values of N Jacobians.
      **options: options of `candidate_spaces`; `intervals` is ignored.

    Returns:
      Candidates by descending dimension d.

    Raises:
      InputError: an option is not valid.
    """
    size = check_spectra(spectra).values.size
    return candidate_spaces(spectra, **{**options, "intervals": max(1, size)})
