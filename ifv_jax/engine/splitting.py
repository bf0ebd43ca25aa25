"""A traced function split in two: what the network's weights alone determine, and all the rest.

Folded normalizations and kernels turned for the gradient depend on the weights and not on the
input. They are computed once for a job instead of at each step.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax.extend import core


class Split(NamedTuple):
    """A function of (weights, others) as two; all of them take and return flat lists.

    Attributes:
      prepare: weights -> prepared values.
      finish: (prepared values, others) -> those results that need the others.
      place: where each result of the function is, see `pick`.
    """

    prepare: Callable[[Sequence[Any]], list[Any]]
    finish: Callable[[Sequence[Any], Sequence[Any]], list[Any]]
    place: list[tuple[str, Any]]


def pick(place: tuple[str, Any], prepared: Sequence[Any], finished: Sequence[Any]) -> Any:
    """Returns a result of the function that was split."""
    which, at = place
    return at if which == "constant" else {"prepared": prepared, "finished": finished}[which][at]


def split(closed: core.ClosedJaxpr, weights: int) -> Split:
    """Splits a program whose first `weights` inputs are the weights."""
    whole, consts = closed.jaxpr, closed.consts
    given, others = whole.invars[:weights], whole.invars[weights:]
    known = {*given, *whole.constvars}
    early, late = [], []
    for eqn in whole.eqns:
        if _is_early(eqn, known):
            early.append(eqn)
            known |= set(eqn.outvars)
        else:
            late.append(eqn)
    results = list(dict.fromkeys(a for a in whole.outvars if isinstance(a, core.Var)))
    wanted = [a for eqn in late for a in eqn.invars if isinstance(a, core.Var)] + results
    shared = [a for a in dict.fromkeys(wanted) if a in known]
    finished = [a for a in results if a not in known]
    first = _function(whole, [*whole.constvars, *given], shared, early)
    second = _function(whole, [*shared, *others], finished, late)
    places = {a: ("finished", i) for i, a in enumerate(finished)}
    places |= {a: ("prepared", i) for i, a in enumerate(shared)}
    place = [
        ("constant", a.val) if isinstance(a, core.Literal) else places[a] for a in whole.outvars
    ]
    return Split(
        lambda weights: first(*consts, *weights),
        lambda prepared, others: second(*prepared, *others),
        place,
    )


def _is_early(eqn: core.JaxprEqn, known: set[Any]) -> bool:
    """Whether the weights determine it, and keeping it costs no more than they do."""
    inputs = [a for a in eqn.invars if isinstance(a, core.Var)]
    if not inputs or eqn.effects or not all(a in known for a in inputs):
        return False
    # What only spreads a value out is cheaper computed where it is used.
    return _size(eqn.outvars) <= _size(inputs)


def _size(variables: Sequence[Any]) -> int:
    return sum(v.aval.size for v in variables)


def _function(whole: Any, inputs: Sequence[Any], outputs: Sequence[Any], eqns: Sequence[Any]):
    part = whole.replace(constvars=[], invars=inputs, outvars=list(outputs), eqns=list(eqns))
    return core.jaxpr_as_fun(core.ClosedJaxpr(part, []))
