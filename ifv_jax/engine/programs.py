"""What JAX traces: functions as programs (jaxprs) that can be looked at and run.

`traced` turns a function into a program and says how to run another in its place. `runs_elsewhere`
tells whether a program may be run outside of the trace that made it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core

Program = core.Jaxpr | core.ClosedJaxpr


class Traced(NamedTuple):
    """A function as a program, for certain arguments.

    Attributes:
      program: its inputs are those leaves of the arguments that JAX is tracing.
      run: the function's results, by this program or one in its place.
    """

    program: core.ClosedJaxpr
    run: Callable[[core.ClosedJaxpr], Any]


def traced(function: Callable[..., Any], args: Sequence[Any]) -> Traced | None:
    """`function` as a program; None where it cannot be traced.

    Leaves that JAX does not trace (numbers, strings, NumPy's and concrete arrays) reach the
    function, and come out of it, as what they are.
    """
    leaves, structure = jax.tree.flatten(tuple(args))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tracer)]
    inputs = [leaves[i] for i in places]
    seen: dict[str, Any] = {}

    def of_inputs(*inputs):
        full = dict(enumerate(leaves)) | dict(zip(places, inputs, strict=True))
        results, seen["structure"] = jax.tree.flatten(
            function(*jax.tree.unflatten(structure, full.values()))
        )
        seen["kept"] = {i: leaf for i, leaf in enumerate(results) if not isinstance(leaf, Tracer)}
        return [leaf for leaf in results if isinstance(leaf, Tracer)]

    try:
        program = jax.make_jaxpr(of_inputs)(*inputs)
    except Exception:
        # An error of the function's own comes again, without detours, when it is called as it is.
        return None

    def run(program: core.ClosedJaxpr) -> Any:
        computed = iter(core.jaxpr_as_fun(program)(*inputs))
        kept, shape = seen["kept"], seen["structure"]
        results = [kept[i] if i in kept else next(computed) for i in range(shape.num_leaves)]
        return jax.tree.unflatten(shape, results)

    return Traced(program, run)


def is_traced(args: Any) -> bool:
    """Whether JAX is tracing any leaf: it differentiates, compiles or batches."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(args))


def kind(tree: Any) -> tuple[Any, ...]:
    """The structure, shapes and dtypes of a pytree: what a program is made for."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((np.shape(a), getattr(a, "dtype", type(a))) for a in leaves)


def inside(eqn: core.JaxprEqn) -> Iterator[tuple[str, list[Program]]]:
    """The parameters of an equation that are programs, or sequences of programs."""
    for name, value in eqn.params.items():
        each = list(value) if isinstance(value, (tuple, list)) else [value]
        if each and all(isinstance(one, (core.Jaxpr, core.ClosedJaxpr)) for one in each):
            yield name, each


def runs_elsewhere(program: Program) -> bool:
    """Whether the rules that users wrote for derivatives and batches still hold.

    Such a rule is a Python function that JAX calls when it is needed. If it refers to a value of
    the function around it, it works only while that function is being traced, and the program that
    is run later would fail. To see that, the rules are tried, without computing anything.
    """
    seen: dict[int, bool] = {}

    def holds(program: Program) -> bool:
        if id(program) not in seen:
            seen[id(program)] = all(holds_in(program, eqn) for eqn in program.eqns)
        return seen[id(program)]

    def holds_in(program: Program, eqn: core.JaxprEqn) -> bool:
        if eqn.primitive.name.startswith("custom_"):
            return _rules_hold(program, eqn)
        return all(holds(each) for _, some in inside(eqn) for each in some)

    return holds(program)


def _rules_hold(program: Program, eqn: core.JaxprEqn) -> bool:
    function = _alone(program, eqn)
    trials: list[Callable[..., Any]] = [lambda *args: _gradient(function, args)]
    if "vmap" in eqn.primitive.name:
        trials.append(lambda *args: jax.vmap(function)(*(jnp.stack([a, a]) for a in args)))
    try:
        tried = [jax.make_jaxpr(trial)(*(a.aval for a in eqn.invars)) for trial in trials]
    except Exception:
        return False
    return not any(map(_holds_tracers, tried))


def _gradient(function: Callable[..., Sequence[Any]], args: Sequence[Any]) -> Any:
    """All of the function's floats, pulled back to all of its arguments' floats."""
    inexact = lambda a: jnp.issubdtype(a.dtype, jnp.inexact)  # noqa: E731
    places = [i for i, a in enumerate(args) if inexact(a)]

    def floats(*some):
        full = dict(enumerate(args)) | dict(zip(places, some, strict=True))
        return [out for out in function(*full.values()) if inexact(out)]

    out, pull = jax.vjp(floats, *(args[i] for i in places))
    return pull(out)


def _holds_tracers(program: Program) -> bool:
    return is_traced(list(getattr(program, "consts", ()))) or any(
        _holds_tracers(each) for eqn in program.eqns for _, some in inside(eqn) for each in some
    )


def _alone(program: Program, eqn: core.JaxprEqn) -> Callable[..., list[Any]]:
    """One equation as a function of its operands, as JAX itself would evaluate it."""
    whole = program.jaxpr if isinstance(program, core.ClosedJaxpr) else program
    fresh: list[Any] = [core.Var(atom.aval) for atom in eqn.invars]
    one = whole.replace(
        constvars=[], invars=fresh, outvars=eqn.outvars, eqns=[eqn.replace(invars=fresh)]
    )
    return core.jaxpr_as_fun(core.ClosedJaxpr(one, []))


def with_equations(program: Any, eqns: Sequence[core.JaxprEqn]) -> Any:
    """The program of these equations, with everything else as it is."""
    if isinstance(program, core.Jaxpr):
        return program.replace(eqns=list(eqns))
    return core.ClosedJaxpr(program.jaxpr.replace(eqns=list(eqns)), program.consts)
