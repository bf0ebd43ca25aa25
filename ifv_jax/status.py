"""What became of one sample: numerical failure is a status of that sample, not an exception."""

import enum
from collections import Counter

import numpy as np


class Status(enum.IntEnum):
    """Per-sample outcome of `visualize` and `invert`; its `message` says what it means."""

    OK = 0
    SILENT = 1
    NON_FINITE = 2
    NO_RESPONSE = 3
    UNDETERMINED = 4

    @property
    def message(self) -> str:
        """What it means, in a sentence."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.OK: "fine",
    Status.SILENT: "the target's significance and its gradient were zero at every starting point",
    Status.NON_FINITE: "the network, its gradient or its Jacobian was not finite for this sample",
    Status.NO_RESPONSE: "the feature response is zero, so the direction r / |r| does not exist",
    Status.UNDETERMINED: "no feature is left that this input could determine",
}


def status_counts(status) -> dict[str, int]:
    """How often each status occurs, by name, for reports. `status`: integers (batch,)."""
    counts = Counter(Status(int(s)).name.lower() for s in np.asarray(status))
    return dict(sorted(counts.items()))
