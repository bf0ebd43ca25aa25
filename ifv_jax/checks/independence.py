"""Whether the samples of a batch leave each other alone, read off the program without running it.

`independent` follows the batch axis through a jaxpr. It knows the primitives that most networks in
inference mode are made of; whatever it does not know, or where samples meet, it does not vouch for.
So True is a proof, and False only a doubt. It takes milliseconds where compiling a deep network for
a look at its values takes many seconds (`sample_checks`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core

from ifv_jax.checks.sample_axes import RULES, Place, Same, Samples, Unknown
from ifv_jax.engine import programs

_CALLS = {
    "jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call",
    "checkpoint", "remat2",
}  # fmt: skip
"""Equations that evaluate one program inside."""


def independent(closed: core.ClosedJaxpr, places: Sequence[Place], batch: int) -> bool:
    """Whether each row of all outputs, (batch, ...), depends on its own sample alone.

    `places` says where samples lie in the inputs.
    """
    try:
        found = _program(closed.jaxpr, list(places), batch)
    except Unknown:
        return False
    return all(one == Samples(0) or (isinstance(one, Same) and 0 in one.constant) for one in found)


def same_program(one: core.ClosedJaxpr, other: core.ClosedJaxpr) -> bool:
    """Whether two programs do the same with the same numbers, for batches of different sizes."""
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
            return False  # numbers, too: where a slice begins, a power
        inner = programs_inside(a), programs_inside(b)
        if len(inner[0]) != len(inner[1]) or not all(map(_alike, *inner)):
            return False
    return True


def programs_inside(eqn: core.JaxprEqn) -> list[core.Jaxpr]:
    """The programs inside an equation, without their constants."""
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
