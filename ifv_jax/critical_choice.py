"""The choice of the critical space C among candidates (Sec. 3.5).

`choose_space` compares how well known objectives are recovered on each candidate.
"""

import enum
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
from ifv_jax.critical_candidates import Candidate
from ifv_jax.critical_space import (
    CriticalSpace,
    check_critical_space,
    fraction_outside,
    full_space,
    project,
)
from ifv_jax.metrics import angular_distance
from ifv_jax.targets import random_targets


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
