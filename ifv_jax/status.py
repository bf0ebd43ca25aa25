"""The outcome of each sample. Numerical failure is a status of that sample, not an exception."""

import enum
from collections import Counter

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Int

from ifv_jax.checks.errors import InputError


class Status(enum.IntEnum):
    """Outcome of one sample of `visualize` or `invert`; `message` explains it."""

    OK = 0
    SILENT = 1
    NON_FINITE = 2
    NO_RESPONSE = 3
    UNDETERMINED = 4
    NEGATIVE = 5
    FLAT = 6
    SIGN_CONVENTION = 7

    @classmethod
    def _missing_(cls, value):
        known = ", ".join(f"{one.value} ({one.name})" for one in cls)
        raise InputError(f"a status: {known}", repr(value), "See `Realizations.status`.")

    @property
    def message(self) -> str:
        """The meaning of this status, in a sentence."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.OK: "fine",
    Status.SILENT: "the target's significance and its gradient were zero at every starting point",
    Status.NON_FINITE: "the network, its gradient or its Jacobian was not finite for this sample",
    Status.NO_RESPONSE: "the feature response is zero, so the direction r / |r| does not exist",
    Status.UNDETERMINED: "no feature is left that this input could determine",
    Status.NEGATIVE: "the response still points away from the target, <r, t> < 0: no optimum of it",
    Status.FLAT: (
        "the layer responds, but the gradient was exactly zero at every starting point: "
        "the response does not depend on the input there"
    ),
    Status.SIGN_CONVENTION: (
        "no response is positive, so no non-negative objective explains this input: "
        "the sign of the prediction is a convention, -t is as good as t"
    ),
}

_KEPT = (Status.OK, Status.SIGN_CONVENTION)


def usable(status: Int[ArrayLike, "*batch"]) -> Bool[Array, "*batch"]:
    """Tells which predictions are directions.

    Args:
      status: status codes of any shape.

    Returns:
      True for OK, and for SIGN_CONVENTION, where only the sign is open; shaped like `status`.

    Raises:
      InputError: the codes are not integers.
    """
    expected, do = "status codes, integers", "Pass `Predictions.status`."
    try:
        codes = jnp.asarray(status)
    except Exception as error:  # no array
        raise InputError(expected, type(status).__name__, do) from error
    if not jnp.issubdtype(codes.dtype, jnp.integer):
        raise InputError(expected, f"dtype {codes.dtype}", do)
    return jnp.isin(codes, jnp.asarray([int(s) for s in _KEPT], jnp.int8))


def status_counts(status: Int[ArrayLike, " batch"]) -> dict[str, int]:
    """Counts how often each status occurs, for reports.

    Args:
      status: status codes, integers (batch,).

    Returns:
      The number of samples for each status that occurs, by its name in lower case, sorted.

    Raises:
      InputError: the codes are not integers (batch,), or one of them is unknown.
    """
    try:
        array = np.asarray(status)
    except Exception as error:  # traced, or no array
        raise InputError("status codes (batch,)", type(status).__name__, "Pass them.") from error
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        got = f"dtype {array.dtype}, shape {array.shape}"
        raise InputError("status codes (batch,), integers", got, "Pass `Predictions.status`.")
    counts = Counter(Status(int(s)).name.lower() for s in array)
    return dict(sorted(counts.items()))
