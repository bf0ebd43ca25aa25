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


class Jitted:
    """`jax.jit(function, **options)`, compiled as fits the backend once it is known.

    Inside another program XLA's options are those of that program.
    """

    def __init__(self, function: Callable[..., Any], **options: Any):
        self._function, self._options = function, options
        self._made: dict[Any, Any] = {}

    def __call__(self, *args):
        """Computes the function's results."""
        nested = programs.is_traced(args)
        key = jax.default_backend(), nested
        if key not in self._made:
            chosen = None if nested else quick(key[0])
            options = {"compiler_options": chosen, **self._options}
            self._made[key] = jax.jit(self._function, **options)
        return self._made[key](*args)

    def cache_size(self) -> int:
        """Returns the number of programs compiled so far."""
        return sum(each._cache_size() for each in self._made.values())


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
