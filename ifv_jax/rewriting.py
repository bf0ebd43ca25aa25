"""A function with some of its primitives replaced, for the CPU: the same values sooner.

`rewritten(function, replacement)` traces the function and walks through what it does, also inside
`jit`, `lax.scan`, `lax.cond` and `jax.checkpoint`. Whatever has a gradient of its own
(`custom_vjp`, `custom_jvp`) is left alone. `on_cpu` puts `fast_conv` and `fast_pool` in the place
of convolutions and max pools, for reverse mode: `jax.grad` and `jax.vjp`, not `jax.jvp`; it also
gives the function the same bits on any number of devices.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from ifv_jax import fast_conv, fast_pool

Replacement = Callable[[core.JaxprEqn], Callable[..., Any] | None]
"""What to compute an equation of one result by, given its operands; None leaves it as it is."""


def rewritten(function: Callable[..., Any], replacement: Replacement) -> Callable[..., Any]:
    """`function` of pytrees of arrays, rewritten whenever it is called; itself if nothing is.

    Meant to be called inside `jit`, where tracing costs nothing a second time.
    """

    @functools.wraps(function)
    def wrapped(*args):
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        if not concerns(closed.jaxpr, replacement):
            return function(*args)
        out = _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args), replacement)
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return wrapped


def on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with `quick` gradients and `steady` divisions."""
    return rewritten(function, lambda eqn: quick(eqn) or steady(eqn))


def quick(eqn: core.JaxprEqn) -> Callable[..., Any] | None:
    """What computes this equation with a faster gradient, if there is such."""
    name, params = eqn.primitive.name, eqn.params
    if name == "conv_general_dilated" and fast_conv.applies(params):
        return fast_conv.fast_conv(functools.partial(eqn.primitive.bind, **params), params)
    if name == "reduce_window_max":
        operand: Any = eqn.invars[0].aval
        if fast_pool.applies(params, operand.dtype):
            return fast_pool.fast_max_pool(params)
    return None


def steady(eqn: core.JaxprEqn) -> Callable[..., Any] | None:
    """Division by something smaller as multiplication by its reciprocal.

    XLA does so by itself when it compiles gradients for one device, and not for several.
    """
    result: Any = eqn.outvars[0].aval
    if eqn.primitive.name != "div" or not jnp.issubdtype(result.dtype, jnp.floating):
        return None
    divisor: Any = eqn.invars[1].aval
    if divisor.size == result.size:
        return None
    return lambda x, y: x * (1 / y)


def _inner(eqn: core.JaxprEqn) -> list[core.Jaxpr]:
    """The programs inside an equation that can be rewritten."""
    name, params = eqn.primitive.name, eqn.params
    if name in ("jit", "pjit", "scan"):
        return [params["jaxpr"].jaxpr]
    if name in ("checkpoint", "remat2"):
        return [params["jaxpr"]]
    if name == "cond":
        return [branch.jaxpr for branch in params["branches"]]
    return []


def concerns(jaxpr: core.Jaxpr, replacement: Replacement) -> bool:
    """Whether there is anything to replace."""
    return any(replacement(eqn) is not None or _inside(eqn, replacement) for eqn in jaxpr.eqns)


def _inside(eqn: core.JaxprEqn, replacement: Replacement) -> bool:
    return any(concerns(jaxpr, replacement) for jaxpr in _inner(eqn))


def _evaluate(
    jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any], replacement: Replacement
) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom):
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        other = replacement(eqn)
        if other is not None:
            out = [other(*operands)]
        elif _inside(eqn, replacement):
            out = _call(eqn, operands, replacement)
        else:
            out = _alone(jaxpr, eqn)(*operands)
        values.update(zip(eqn.outvars, out, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _alone(jaxpr: core.Jaxpr, eqn: core.JaxprEqn) -> Callable[..., list[Any]]:
    """One equation as a function of its operands, as JAX itself would evaluate it."""
    fresh: list[Any] = [core.Var(atom.aval) for atom in eqn.invars]
    one = jaxpr.replace(
        constvars=[], invars=fresh, outvars=eqn.outvars, eqns=[eqn.replace(invars=fresh)]
    )
    return core.jaxpr_as_fun(core.ClosedJaxpr(one, []))


def _call(eqn: core.JaxprEqn, operands: Sequence[Any], replacement: Replacement) -> Sequence[Any]:
    """An equation with programs inside, these rewritten."""
    name, params = eqn.primitive.name, eqn.params
    if name in ("checkpoint", "remat2"):
        run = jax.checkpoint(
            lambda *args: _evaluate(params["jaxpr"], (), args, replacement),
            prevent_cse=params["prevent_cse"],
            policy=params["policy"],
        )
        return run(*operands)
    if name == "cond":
        index, *rest = operands
        branches = [_as_function(branch, replacement) for branch in params["branches"]]
        return lax.switch(index, branches, *rest)
    if name == "scan":
        return _scan(params, operands, replacement)
    return _as_function(params["jaxpr"], replacement)(*operands)


def _as_function(closed: core.ClosedJaxpr, replacement: Replacement) -> Callable[..., list[Any]]:
    return lambda *args: _evaluate(closed.jaxpr, closed.consts, args, replacement)


def _scan(params: dict[str, Any], operands: Sequence[Any], replacement: Replacement) -> list[Any]:
    body, constants = _as_function(params["jaxpr"], replacement), params["num_consts"]
    split = constants + params["num_carry"]
    consts, carry, xs = operands[:constants], operands[constants:split], operands[split:]

    def step(carry, x):
        out = body(*consts, *carry, *x)
        return out[: params["num_carry"]], out[params["num_carry"] :]

    carry, ys = lax.scan(
        step,
        list(carry),
        list(xs),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *ys]
