"""A proof, from the traced program alone, that the samples of a batch do not influence each other.

`independent` follows the batch axis through a jaxpr. It knows the primitives of most networks in
inference mode. It returns False for a primitive that it does not know, and where samples meet. So
True is a proof, and False is only a doubt. The proof takes milliseconds; compiling a deep network
to compare values takes many seconds (`ifv_jax.checks.samples`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core

from ifv_jax.checks.sample_axes import RULES, Place, Same, Samples, Unknown
from ifv_jax.engine import programs

_CALLS = frozenset(
    [
        "jit",
        "pjit",
        "closed_call",
        "core_call",
        "custom_jvp_call",
        "custom_vjp_call",
        "checkpoint",
        "remat2",
    ]
)
"""Primitives that evaluate one inner program."""


def independent(closed: core.ClosedJaxpr, places: Sequence[Place], batch: int) -> bool:
    """Tells whether each row of all outputs, (batch, ...), depends on its own sample alone.

    Args:
      closed: the traced program.
      places: where the samples lie in each of its inputs.
      batch: number of samples.

    Returns:
      True if this is proved, False if it is not.
    """
    try:
        found = _program(closed.jaxpr, list(places), batch)
    except Unknown:
        return False
    return all(one == Samples(0) or (isinstance(one, Same) and 0 in one.constant) for one in found)


def same_program(one: core.ClosedJaxpr, other: core.ClosedJaxpr) -> bool:
    """Tells whether two programs, for batches of different sizes, do the same with equal numbers.

    Args:
      one: a traced program.
      other: another one.

    Returns:
      True if they have the same primitives, constants and literals in the same order.
    """
    if len(one.consts) != len(other.consts):
        return False
    consts = zip(one.consts, other.consts, strict=True)
    return all(a is b or np.array_equal(a, b) for a, b in consts) and _alike(one.jaxpr, other.jaxpr)


def _alike(one: core.Jaxpr, other: core.Jaxpr) -> bool:
    if len(one.eqns) != len(other.eqns):
        return False
    for a, b in zip(one.eqns, other.eqns, strict=True):
        if a.primitive is not b.primitive or len(a.invars) != len(b.invars):
            return False
        x: Any
        y: Any
        for x, y in zip(a.invars, b.invars, strict=True):
            if isinstance(x, core.Literal) != isinstance(y, core.Literal):
                return False
            if isinstance(x, core.Literal) and not np.array_equal(x.val, y.val, equal_nan=True):
                return False
        if any(a.params.get(name) != b.params.get(name) for name in ("start_indices", "y")):
            return False  # these parameters are numbers, too: the start of a slice, a power
        inner = programs_inside(a), programs_inside(b)
        if len(inner[0]) != len(inner[1]) or not all(map(_alike, *inner)):
            return False
    return True


def programs_inside(eqn: core.JaxprEqn) -> list[core.Jaxpr]:
    """Lists the programs inside an equation.

    Args:
      eqn: an equation of a traced program.

    Returns:
      The inner programs, without their constants.
    """
    found: list[Any] = [one for _, some in programs.inside(eqn) for one in some]
    return [getattr(one, "jaxpr", one) for one in found]


def _program(jaxpr: core.Jaxpr, places: list[Place], batch: int) -> list[Place]:
    known: dict[Any, Place] = dict.fromkeys(jaxpr.constvars, Same())
    known.update(zip(jaxpr.invars, places, strict=True))

    def read(atom: Any) -> Place:
        shape = atom.aval.shape
        place = Same() if isinstance(atom, core.Literal) else known[atom]
        if isinstance(place, Same):  # an axis of length one has one value
            short = {i for i, size in enumerate(shape) if size == 1}
            return Same(place.constant | short)
        return place

    outvars: Any = jaxpr.outvars
    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        name = eqn.primitive.name
        if eqn.effects or "callback" in name:
            raise Unknown
        if name in _CALLS:
            inner = programs_inside(eqn)
            if len(inner) != 1 or len(inner[0].invars) != len(operands):
                raise Unknown
            found = _program(inner[0], operands, batch)
        elif name in RULES:
            found = RULES[name](eqn, operands, batch)
        elif all(isinstance(place, Same) for place in operands):
            found = [Same()] * len(eqn.outvars)
        else:
            raise Unknown
        known.update(zip(eqn.outvars, found, strict=True))
    return [read(atom) for atom in outvars]
