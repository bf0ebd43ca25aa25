"""The search for the critical space C, by candidates and a choice among them (Sec. 3.5).

`candidate_spaces` runs Algorithm 1 at the thresholds where the dimension changes. `choose_space`
compares how well known objectives are recovered on each candidate.
"""

import enum
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ifv_jax.checks import (
    InputError,
    as_array,
    check_integer,
    check_kind,
    check_real,
    check_targets,
    describe,
)
from ifv_jax.critical_kernel import (
    Order,
    Spectra,
    Tree,
    approximate_kernel,
    check_spectra,
    merge_order,
)
from ifv_jax.critical_space import (
    CriticalSpace,
    check_critical_space,
    critical_space_from_complement,
    fraction_outside,
    full_space,
    project,
)
from ifv_jax.metrics import angular_distance
from ifv_jax.targets import random_targets


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


class ChoiceStatus(enum.Enum):
    """Whether a critical space could be chosen."""

    CHOSEN = "the largest critical space that predicts known objectives about as well as the best"
    NONE_QUALIFIES = (
        "no critical space predicts known objectives clearly better than a random guess; "
        "the one furthest ahead of it is returned"
    )

    @classmethod
    def _missing_(cls, value):
        known = ", ".join(one.name for one in cls)
        raise InputError(f"one of {known}", repr(value), "See `Choice.status`.")


class SpaceScore(NamedTuple):
    """How well known objectives were predicted on one critical space; one row of the table.

    Attributes:
      dimension: d, the dimension of the critical space.
      tau_low: lower end of the range of thresholds; NaN where no threshold belongs to the space.
      tau_high: upper end of that range.
      median_deg: median angle between predictions and known objectives, both projected onto C.
      p90_deg: 90th percentile of that angle.
      random_deg: median angle of a random guess with the right sign on the same C.
      outside: mean of |P_U t|^2 over the known objectives.
      qualifies: whether median_deg is below the given part of random_deg.
    """

    dimension: int
    tau_low: float
    tau_high: float
    median_deg: float
    p90_deg: float
    random_deg: float
    outside: float
    qualifies: bool


class Choice(NamedTuple):
    """The outcome of `choose_space`.

    Attributes:
      space: the critical space that was chosen.
      status: whether a space qualified.
      table: the scores of all candidates, by descending dimension.
    """

    space: CriticalSpace
    status: ChoiceStatus
    table: tuple[SpaceScore, ...]


def choose_space(
    candidates: Sequence[Candidate],
    predict: Callable[[CriticalSpace], jax.Array | np.ndarray],
    targets: Float[ArrayLike, "samples n"],
    *,
    within_deg: float = 1.0,
    below_random: float = 0.25,
    guesses: int = 64,
    seed: int = 0,
) -> Choice:
    """Chooses the largest critical space on which known objectives are recovered (Sec. 3.5).

    Angles shrink with the dimension of a space, even for guesses. Therefore a space qualifies only
    if its median angle is below `below_random` times that of a random guess. Among the spaces that
    qualify, the largest is chosen whose median is within `within_deg` of the best one.

    The guesses of the random baseline are `random_targets` projected onto C, with the better of the
    two signs, because the inversion determines the sign, too. In one dimension a guess is always
    right, so nothing can beat it there.

    Args:
      candidates: critical spaces from `candidate_spaces`; the full space is added if it is missing.
      predict: the inversion, critical space -> predicted objectives (N, n) of N realizations. It is
        called once for each candidate.
      targets: the objectives (N, n) that FV maximized for these realizations, of unit length.
      within_deg: tolerance in degrees, >= 0, see above.
      below_random: factor >= 0, see above.
      guesses: number of random guesses, >= 1.
      seed: seed of the random guesses.

    Returns:
      The choice. If no space qualifies, its status says so, and the space is the one with the
      lowest ratio of its median to that of the random guess (the larger one of equals). A
      prediction counts as 90 degrees if it is not finite, or if its objective lies in U.

    Raises:
      InputError: the targets or predictions have another shape, or an option is not valid.
    """
    targets = check_targets(targets)
    n = targets.shape[1]
    within_deg = check_real(
        within_deg, "within_deg", "degrees >= 0", least=0, do="The default is 1."
    )
    below_random = check_real(
        below_random, "below_random", "a factor >= 0", least=0, do="The default is 0.25."
    )
    guesses = check_integer(guesses, "guesses", least=1)
    seed = check_integer(seed, "seed", least=-(2**63), most=2**63 - 1)
    if not callable(predict):
        raise InputError(
            "a function critical space -> objectives (N, n) as `predict`",
            describe(predict),
            "Pass e.g. `lambda space: solve(data, space=space).objective`.",
        )
    candidates = _check_candidates(candidates)
    for space, _, _ in candidates:
        if space.basis.shape[0] != n:
            raise InputError(
                f"candidates over the {n} features of the targets",
                f"one over {space.basis.shape[0]}",
                "Search the critical space on Jacobians of the same layer.",
            )
    if all(space.basis.shape[1] < n for space, _, _ in candidates):
        candidates.append(Candidate(full_space(n), float("nan"), float("nan")))
    candidates.sort(key=lambda candidate: -candidate.space.basis.shape[1])
    random = random_targets(jax.random.key(seed), guesses, features=n)

    table = []
    for space, tau_low, tau_high in candidates:
        do = "`predict` must return a row for every target, failed ones included."
        predicted = as_array(_ask(predict, space), f"predictions of shape {targets.shape}", do)
        if predicted.shape != targets.shape:
            raise InputError(
                f"predictions of shape {targets.shape}, one for each target",
                f"shape {predicted.shape}",
                do,
            )
        angles = np.asarray(angular_distance(predicted, targets, space=space))
        median = float(np.median(angles))
        random_deg = _random_median(space, random, targets)
        table.append(
            SpaceScore(
                dimension=space.basis.shape[1],
                tau_low=tau_low,
                tau_high=tau_high,
                median_deg=median,
                p90_deg=float(np.quantile(angles, 0.9)),
                random_deg=random_deg,
                outside=float(fraction_outside(space, targets).mean()),
                qualifies=median < below_random * random_deg,
            )
        )
    qualified = [row.median_deg for row in table if row.qualifies]
    if qualified:
        limit = min(qualified) + within_deg
        best = next(i for i, row in enumerate(table) if row.qualifies and row.median_deg <= limit)
        return Choice(candidates[best].space, ChoiceStatus.CHOSEN, tuple(table))
    ratios = [row.median_deg / row.random_deg if row.random_deg else np.inf for row in table]
    best = int(np.argmin(ratios))
    return Choice(candidates[best].space, ChoiceStatus.NONE_QUALIFIES, tuple(table))


def _ask(predict: Callable, space: CriticalSpace):
    try:
        return predict(space)
    except (InputError, jax.errors.JaxRuntimeError, MemoryError):
        raise
    except Exception as error:
        raise InputError(
            "a function critical space -> objectives (N, n) as `predict`",
            f"one that fails ({error!r})",
            "Pass e.g. `lambda space: solve(data, space=space).objective`.",
        ) from error


def _check_candidates(candidates) -> list[Candidate]:
    do = "Pass what `candidate_spaces` returns."
    no_list = str | bytes | Candidate | np.ndarray | jax.Array
    if not isinstance(candidates, Iterable) or isinstance(candidates, no_list):
        raise InputError("a list of Candidate as `candidates`", describe(candidates), do)
    found = [check_kind(one, Candidate, "candidates", do) for one in candidates]
    for one in found:
        check_critical_space(one.space)
    return found


def _random_median(
    space: CriticalSpace, random: Float[Array, "guesses n"], targets: Float[Array, "samples n"]
) -> float:
    """Returns the median angle in degrees on C between targets and guesses of known sign."""
    if space.basis.shape[1] == 1:
        return 0.0  # without rounding errors
    guesses, known = (np.asarray(project(space, t), np.float64) for t in (random, targets))
    cosine = np.abs(known @ guesses.T)  # 0, and so 90 degrees, for a projection that is zero
    return float(np.median(np.rad2deg(np.arccos(np.minimum(cosine, 1.0)))))
