"""A function with some of its primitives replaced, for the CPU: the same values sooner.

`rewritten(function, replacement)` traces the function and puts other equations in the place of
some, also inside `jit`, `lax.scan`, `lax.cond` and `jax.checkpoint`. Every other equation stays as
it is, and so does what has a gradient of its own (`custom_vjp`, `custom_jvp`) or is not understood:
a replacement that would not fit is not made, and a function that cannot be traced is called as it
is. `on_cpu` puts `fast_conv` and `fast_pool` in the place of convolutions and max pools; it also
gives the function the same bits on any number of devices.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from ifv_jax.engine import fast_conv, fast_pool, programs

Replacement = Callable[[core.JaxprEqn], Callable[..., Any] | None]
"""What to compute an equation of one result by, given its operands; None leaves it as it is."""

ENTERED = ("jit", "pjit", "scan", "cond", "checkpoint", "remat2")
"""Primitives whose programs are rewritten."""


def rewritten(function: Callable[..., Any], replacement: Replacement) -> Callable[..., Any]:
    """`function` of pytrees, rewritten whenever it is called.

    Meant to be called inside `jit`, where tracing costs nothing a second time.
    """

    @functools.wraps(function)
    def wrapped(*args):
        traced = programs.traced(function, args)
        if traced is None or not programs.runs_elsewhere(traced.program):
            return function(*args)
        return traced.run(_rewrite(traced.program, replacement, {}))

    return wrapped


def on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with `quick` gradients and `steady` divisions.

    Where JAX traces nothing there is no gradient and nothing to compile: it is called as it is.
    """
    quickly = rewritten(function, _for_cpu)

    @functools.wraps(function)
    def wrapped(*args):
        return quickly(*args) if programs.is_traced(args) else function(*args)

    return wrapped


def _for_cpu(eqn: core.JaxprEqn) -> Callable[..., Any] | None:
    return quick(eqn) or steady(eqn)


def quick(eqn: core.JaxprEqn) -> Callable[..., Any] | None:
    """What computes this equation with a faster gradient, if there is such."""
    name, params = eqn.primitive.name, eqn.params
    if name == "conv_general_dilated":
        x, kernel = _avals(eqn.invars)
        if fast_conv.applies(params, x.dtype, kernel.dtype):
            return fast_conv.fast_conv(functools.partial(eqn.primitive.bind, **params), params)
    if name == "reduce_window_max":
        (x,) = _avals(eqn.invars)
        if fast_pool.applies(params, x.dtype):
            return fast_pool.fast_max_pool(params)
    return None


def steady(eqn: core.JaxprEqn) -> Callable[..., Any] | None:
    """Division by something smaller as multiplication by its reciprocal.

    XLA does so by itself when it compiles gradients for one device, and not for several.
    """
    if eqn.primitive.name != "div":
        return None
    (result,), (_, divisor) = _avals(eqn.outvars), _avals(eqn.invars)
    if not jnp.issubdtype(result.dtype, jnp.floating) or divisor.size == result.size:
        return None
    # In float16 the reciprocal of a large number is almost zero; in bfloat16 all are coarse.
    dtype = jnp.promote_types(result.dtype, jnp.float32)
    if isinstance(eqn.invars[1], core.Literal) and not _invertible(eqn.invars[1].val, dtype):
        return None
    return lambda x, y: (x.astype(dtype) * (1 / y.astype(dtype))).astype(result.dtype)


def _invertible(divisor: Any, dtype: Any) -> bool:
    """Whether the reciprocal of a constant is neither infinite nor flushed to zero."""
    limits, size = jnp.finfo(dtype), abs(float(divisor))
    return 1 / float(limits.max) < size < 1 / float(limits.tiny)


def _avals(atoms: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(atom.aval for atom in atoms)


def concerns(program: programs.Program, replacement: Replacement) -> bool:
    """Whether there is anything to replace."""
    return _rewrite(program, replacement, {}) is not program


def _rewrite(program: Any, replacement: Replacement, done: dict[int, Any]) -> Any:
    """The program with other equations; itself if nothing is replaced.

    What occurs in several places, `done`, stays one program, which is then compiled once.
    """
    if id(program) not in done:
        instead = [_instead(eqn, replacement, done) for eqn in program.eqns]
        done[id(program)] = program
        if any(new is not None for new in instead):
            pairs = zip(instead, program.eqns, strict=True)
            eqns = [e for new, old in pairs for e in ([old] if new is None else new)]
            done[id(program)] = programs.with_equations(program, eqns)
    return done[id(program)]


def _instead(
    eqn: core.JaxprEqn, replacement: Replacement, done: dict[int, Any]
) -> list[core.JaxprEqn] | None:
    """The equations in the place of one; None if it is left alone."""
    if eqn.primitive.name in ENTERED:
        params = dict(eqn.params)
        for name, before in programs.inside(eqn):
            after = [_rewrite(program, replacement, done) for program in before]
            if any(new is not old for new, old in zip(after, before, strict=True)):
                params[name] = tuple(after) if isinstance(params[name], tuple) else after[0]
        same = all(params[name] is value for name, value in eqn.params.items())
        return None if same else [eqn.replace(params=params)]
    try:
        return _replaced(eqn, replacement)
    except Exception:
        return None  # Whatever it is about this equation: without the replacement it works.


def _replaced(eqn: core.JaxprEqn, replacement: Replacement) -> list[core.JaxprEqn] | None:
    """The replacement's equations, under the names of the one in whose place they are."""
    other = replacement(eqn)
    if other is None or isinstance(eqn.outvars[0], core.DropVar):
        return None
    avals = _avals(eqn.invars)
    closed = jax.make_jaxpr(other)(*avals)
    program: core.Jaxpr = closed.jaxpr
    computed = [v for each in program.eqns for v in each.outvars]
    fits = _avals(program.outvars) == _avals(eqn.outvars) and program.outvars[0] in computed
    if closed.consts or not fits:
        return None
    params = tuple(eqn.params.items())
    _differentiate(_Trial(other, replacement, eqn.primitive, params, avals))
    names: dict[Any, Any] = dict(zip(program.invars, eqn.invars, strict=True))
    eqns = []
    for each in program.eqns:
        invars = [a if isinstance(a, core.Literal) else names[a] for a in each.invars]
        names |= {v: core.Var(v.aval) for v in each.outvars}
        names |= dict(zip(program.outvars, eqn.outvars, strict=True))
        outvars: list[Any] = [v if isinstance(v, core.DropVar) else names[v] for v in each.outvars]
        eqns.append(
            each.replace(invars=invars, outvars=outvars, source_info=eqn.source_info, ctx=eqn.ctx)
        )
    return eqns


@dataclass(frozen=True)
class _Trial:
    function: Callable[..., Any] = field(compare=False)
    replacement: Replacement
    primitive: core.Primitive
    params: tuple[tuple[str, Any], ...]
    avals: tuple[Any, ...]


@functools.lru_cache(maxsize=1000)
def _differentiate(trial: _Trial) -> None:
    """Whatever fails in the gradient does so before the replacement is made."""

    def both(*args):
        result, pull = jax.vjp(trial.function, *args)
        return pull(result)

    jax.make_jaxpr(both)(*trial.avals)
