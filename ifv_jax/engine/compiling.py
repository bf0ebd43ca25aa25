"""How programs that hold a network are compiled: on the CPU, XLA is asked to be quick about it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ifv_jax.engine import programs

_QUICK = {
    # The emitters spend several times longer on a kernel, and the kernels are no faster. They
    # cannot be turned off any more in the XLA of JAX 0.12.
    "xla_cpu_use_fusion_emitters": False,
}


def jitted(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Returns `jax.jit(function, **options)`, compiled as fits the backend once it is known.

    Inside another program XLA's options are those of that program. Its `cache_size()` is the number
    of programs compiled so far.
    """

    made: list[Any] = []

    @functools.cache
    def program(platform: str, nested: bool) -> Any:
        chosen = None if nested else quick(platform)
        made.append(jax.jit(function, compiler_options=chosen, **options))
        return made[-1]

    @functools.wraps(function)
    def run(*args, **kwargs):
        return program(jax.default_backend(), programs.is_traced(args))(*args, **kwargs)

    run.cache_size = lambda: sum(each._cache_size() for each in made)  # pyright: ignore[reportFunctionMemberAccess]
    return run


@functools.cache
def quick(platform: str) -> dict[str, Any] | None:
    """Returns XLA's options for a network, as far as this version of XLA knows them."""
    if platform != "cpu":
        return None
    known = {}
    for name, value in _QUICK.items():
        try:
            jax.jit(jnp.negative, compiler_options={name: value}).lower(0.0).compile()
        except Exception:  # "No such compile option"
            continue
        known[name] = value
    return known or None
