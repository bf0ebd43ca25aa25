"""A program whose control flow runs on the host, so that it can ask for what it does not hold.

An optimizer such as jaxopt's L-BFGS calls the network in a dozen places, and compiled as a whole it
would hold the network a dozen times. Here its loops and branches are followed in Python. Where it
calls the network it yields the arguments and is sent the result; all that lies between two such
places is compiled in small programs without a network.

    @marked
    def f(x): ...                          # only its result's shape matters
    asking = plan(function, x)             # function calls f, traced once
    running = asking(x)                    # a generator
    request = next(running)                # the arguments of a call of f
    request = running.send(results)        # ... until StopIteration, whose value is the result

A result may be sent as a function without arguments, which is called once it is needed, if ever.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core

from ifv_jax.engine import programs

_MARK = "asked_of_the_host"

Values = list[Any]
Running = Generator[Values, Sequence[Any], Values]


def marked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function, to be asked for: it is traced for the shape of its result alone."""

    def asked_of_the_host(*args):
        return function(*args)

    return jax.jit(asked_of_the_host)


def plan(function: Callable[..., Any], *args: Any) -> Callable[..., Generator[Any, Any, Any]]:
    """Returns `function` as a generator function that yields where a `marked` one is called.

    Args:
      function: traced once; its loops and branches are `lax.while_loop` and `lax.cond`.
      *args: pytrees of arrays (or their shapes) for which it is meant.

    Returns: A function of such arguments. Its generator yields the flat arguments of each marked
      call, wants its flat results (or functions that compute them), and returns the pytree of
      results.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    program, structure = _program(closed), jax.tree.structure(shape)

    def run(*args):
        results = yield from program.run(jax.tree.leaves(args))
        return jax.tree.unflatten(structure, [_needed(a) for a in results])

    return run


class _Program(NamedTuple):
    consts: dict[Any, Any]
    invars: Sequence[Any]
    outvars: Sequence[Any]
    steps: list[tuple[Callable[[Values], Running], Sequence[Any], Sequence[Any]]]

    def run(self, values: Sequence[Any]) -> Running:
        known = dict(self.consts) | dict(zip(self.invars, values, strict=True))
        read = lambda a: a.val if isinstance(a, core.Literal) else known[a]  # noqa: E731
        for step, inputs, outputs in self.steps:
            results = yield from step([read(a) for a in inputs])
            known |= dict(zip(outputs, results, strict=True))
        return [read(a) for a in self.outvars]


def _program(closed: Any) -> _Program:
    whole, consts = closed.jaxpr, closed.consts
    steps, waiting = [], []
    for index, eqn in enumerate(whole.eqns):
        if not _asks(eqn):
            waiting.append(eqn)
            continue
        later = [*whole.eqns[index:], whole]
        steps += _compiled(whole, waiting, later)
        waiting = []
        steps.append((_followed(eqn), eqn.invars, eqn.outvars))
    steps += _compiled(whole, waiting, [whole])
    known = dict(zip(whole.constvars, consts, strict=True))
    return _Program(known, whole.invars, whole.outvars, steps)


def _asks(eqn: core.JaxprEqn) -> bool:
    """Whether a marked function is called by the equation or inside of it."""
    if eqn.params.get("name") == _MARK:
        return True
    inner = (p for _, some in programs.inside(eqn) for p in some)
    return any(_asks(e) for p in inner for e in p.eqns)


def _compiled(whole: Any, eqns: Sequence[core.JaxprEqn], later: Iterable[Any]) -> list[Any]:
    """The equations as one compiled step, which returns what is needed later."""
    if not eqns:
        return []
    made = [v for eqn in eqns for v in eqn.outvars if not isinstance(v, core.DropVar)]
    used = {a for one in later for a in _variables(one)}
    outputs = [v for v in made if v in used]
    inputs = list(dict.fromkeys(a for eqn in eqns for a in _variables(eqn) if a not in made))
    part = whole.replace(constvars=[], invars=inputs, outvars=outputs, eqns=list(eqns))
    function = jax.jit(core.jaxpr_as_fun(core.ClosedJaxpr(part, [])))

    def step(values: Values) -> Running:
        return function(*[_needed(a) for a in values])
        yield  # a generator, as all steps are

    return [(step, inputs, outputs)] if outputs else []


def _needed(value: Any) -> Any:
    return value() if callable(value) else value


def _variables(one: Any) -> list[Any]:
    """The variables that an equation reads, or a program returns."""
    atoms = one.invars if isinstance(one, core.JaxprEqn) else one.outvars
    return [a for a in atoms if not isinstance(a, core.Literal)]


def _followed(eqn: core.JaxprEqn) -> Callable[[Values], Running]:
    """An equation that asks, as a step that is followed on the host."""
    name, params = eqn.primitive.name, eqn.params
    if params.get("name") == _MARK:
        return _asked
    if name in ("jit", "pjit"):
        return _program(params["jaxpr"]).run
    if name == "while":
        return _while(params)
    if name == "cond":
        branches = [_program(branch) for branch in params["branches"]]
        return lambda values: branches[int(values[0])].run(values[1:])
    raise NotImplementedError(f"a marked function inside of {name!r} cannot be followed")


def _asked(values: Values) -> Running:
    return list((yield values))


def _while(params: dict[str, Any]) -> Callable[[Values], Running]:
    condition, body = _program(params["cond_jaxpr"]), _program(params["body_jaxpr"])
    before, between = params["cond_nconsts"], params["body_nconsts"]

    def run(values: Values) -> Running:
        tested, fixed = values[:before], values[before : before + between]
        carry = values[before + between :]
        while True:
            (wanted,) = yield from condition.run([*tested, *carry])
            if not bool(wanted):
                return carry
            carry = yield from body.run([*fixed, *carry])

    return run
