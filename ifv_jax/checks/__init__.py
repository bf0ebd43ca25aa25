"""Checks of everything that crosses the public boundary, made before expensive work starts."""

from ifv_jax.checks.arrays import (
    as_array,
    as_host,
    check_batch,
    check_some_finite,
    check_targets,
)
from ifv_jax.checks.errors import InputError
from ifv_jax.checks.values import (
    check_flag,
    check_hashable,
    check_indices,
    check_integer,
    check_integers,
    check_key,
    check_kind,
    check_real,
    describe,
    is_concrete,
)

__all__ = [
    "InputError",
    "as_array",
    "as_host",
    "check_batch",
    "check_flag",
    "check_hashable",
    "check_indices",
    "check_integer",
    "check_integers",
    "check_key",
    "check_kind",
    "check_real",
    "check_some_finite",
    "check_targets",
    "describe",
    "is_concrete",
]
