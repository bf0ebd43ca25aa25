"""Rules for the place of the samples in the result of a primitive, given their place before it.

There is one rule for each primitive of most networks in inference mode. A rule raises `Unknown`
where samples meet, or could meet. `ifv_jax.checks.independence` applies the rules to a program.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Samples(NamedTuple):
    """An array that contains the samples side by side along an axis.

    Attributes:
      axis: the axis. Entry i along it belongs to sample i // inner % batch.
      inner: number of consecutive entries of one sample.
    """

    axis: int
    inner: int = 1


class Same(NamedTuple):
    """An array that does not depend on the samples.

    Attributes:
      constant: axes along which all values are equal.
    """

    constant: frozenset[int] = frozenset()


Place = Samples | Same
"""Where the samples lie in an array."""

Rule = Callable[[Any, list[Place], int], Sequence[Place]]
"""(equation, places of its operands, batch) -> places of its results."""


class Unknown(Exception):
    """Raised where no rule says that samples stay apart."""


def _aligned(shapes: Sequence[tuple[int, ...]], places: Sequence[Place]) -> Place:
    """Returns the place in a combination, entry by entry, of arrays of one shape or scalars."""
    arrays = [p for shape, p in zip(shapes, places, strict=True) if shape]
    samples = {p for p in arrays if isinstance(p, Samples)}
    constant = [p.constant for p in arrays if isinstance(p, Same)]
    if not samples:
        return Same(frozenset.intersection(*constant) if constant else frozenset())
    place = samples.pop()
    if samples or any(place.axis not in axes for axes in constant):
        raise Unknown
    return place


def _shapes(eqn) -> list[tuple[int, ...]]:
    return [atom.aval.shape for atom in eqn.invars]


def _elementwise(eqn, places, batch):
    return [_aligned(_shapes(eqn), places)] * len(eqn.outvars)


def _passed_on(eqn, places, batch):
    return places


def _moved(place: Place, new: dict[int, int]) -> Place:
    """Renames the axes of a place; axes that are not in `new` do not exist afterwards."""
    if isinstance(place, Same):
        return Same(frozenset(new[i] for i in place.constant if i in new))
    if place.axis not in new:
        raise Unknown
    return place._replace(axis=new[place.axis])


def _along(axes: Callable[[Any], Any], gone: bool) -> Rule:
    """Makes the rule of an operation along axes of all operands, which it may remove (`gone`)."""

    def rule(eqn, places, batch):
        used = {int(i) for i in np.atleast_1d(axes(eqn))}
        shapes = _shapes(eqn)
        place = _aligned(shapes, places)
        kept = [i for i in range(len(shapes[0])) if i not in used]
        new = {i: k if gone else i for k, i in enumerate(kept)}
        return [_moved(place, new)] * len(eqn.outvars)

    return rule


def _broadcast_in_dim(eqn, places, batch):
    shape, dims = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    place = _moved(places[0], dict(enumerate(dims)))
    if isinstance(place, Same):
        return [Same(place.constant | (set(range(len(shape))) - set(dims)))]
    return [place]


def _transpose(eqn, places, batch):
    return [_moved(places[0], {i: k for k, i in enumerate(eqn.params["permutation"])})]


def _spans(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Returns, for each axis, its stride in row-major order and the stride of the axis before."""
    return [(math.prod(shape[i + 1 :]), math.prod(shape[i:])) for i in range(len(shape))]


def _reshape(eqn, places, batch):
    if eqn.params.get("dimensions") is not None:
        raise Unknown
    old, new = _spans(eqn.invars[0].aval.shape), _spans(eqn.outvars[0].aval.shape)
    place = places[0]
    if isinstance(place, Same):
        varies = [span for i, span in enumerate(old) if i not in place.constant]
        apart = (
            k
            for k, (low, high) in enumerate(new)
            if all(high <= start or end <= low for start, end in varies)
        )
        return [Same(frozenset(apart))]
    first = old[place.axis][0] * place.inner  # the samples' stride in flat order
    for k, (low, high) in enumerate(new):
        if low <= first and first * batch <= high and first % low == 0:
            return [Samples(k, first // low)]
    raise Unknown


def _conv(eqn, places, batch):
    data, kernel = places
    numbers = eqn.params["dimension_numbers"]
    if isinstance(kernel, Samples) or eqn.params["batch_group_count"] != 1:
        raise Unknown
    if isinstance(data, Same):
        return [Same()]
    return [_moved(data, {numbers.lhs_spec[0]: numbers.out_spec[0]})]


def _dot_general(eqn, places, batch):
    contracted, together = eqn.params["dimension_numbers"]
    new = []
    for side, shape in enumerate(_shapes(eqn)):
        axes = {axis: i for i, axis in enumerate(together[side])}
        first = len(axes) + (new[0][1] if new else 0)
        free = [i for i in range(len(shape)) if i not in (*contracted[side], *together[side])]
        axes.update({axis: first + i for i, axis in enumerate(free)})
        new.append((axes, len(free)))
    moved = [_moved(place, axes) for place, (axes, _) in zip(places, new, strict=True)]
    samples = {place for place in moved if isinstance(place, Samples)}
    if not samples:
        return [Same()]
    place = samples.pop()
    if samples:
        raise Unknown
    if place.axis < len(together[0]) and any(
        isinstance(other, Same) and place.axis not in other.constant for other in moved
    ):
        raise Unknown  # samples with different weights
    return [place]


def _concatenate(eqn, places, batch):
    place = _aligned(_shapes(eqn), places)
    along = eqn.params["dimension"]
    return [_moved(place, {i: i for i in range(len(_shapes(eqn)[0])) if i != along})]


def _stack(eqn, places, batch):
    place, at = _aligned(_shapes(eqn), places), eqn.params["axis"]
    return [_moved(place, {i: i + (i >= at) for i in range(len(_shapes(eqn)[0]))})]


def _untouched(eqn, place: Place, whole: Callable[[int], bool]) -> Place:
    """Returns the place after an operation that keeps only some axes whole."""
    return _moved(place, {i: i for i in range(len(_shapes(eqn)[0])) if whole(i)})


def _pad(eqn, places, batch):
    config = eqn.params["padding_config"]
    return [_untouched(eqn, places[0], lambda i: tuple(config[i]) == (0, 0, 0))]


def _slice(eqn, places, batch):
    shape, params = _shapes(eqn)[0], eqn.params
    strides = params["strides"] or (1,) * len(shape)

    def whole(i):
        taken = (params["start_indices"][i], params["limit_indices"][i], strides[i])
        return taken == (0, shape[i], 1)

    if isinstance(places[0], Same):
        return places
    return [_untouched(eqn, places[0], whole)]


def _dynamic_slice(eqn, places, batch):
    if not all(isinstance(place, Same) for place in places[1:]):
        raise Unknown
    shape, sizes = _shapes(eqn)[0], eqn.params["slice_sizes"]
    return [_untouched(eqn, places[0], lambda i: sizes[i] == shape[i])]


def _reduce_window(eqn, places, batch):
    params = eqn.params

    def whole(i):
        ones = ("window_dimensions", "window_strides", "base_dilation", "window_dilation")
        return all(params[name][i] == 1 for name in ones) and tuple(params["padding"][i]) == (0, 0)

    return [_untouched(eqn, places[0], whole)]


def _gather(eqn, places, batch):
    if not isinstance(places[1], Same):
        raise Unknown
    shape, numbers = _shapes(eqn)[0], eqn.params["dimension_numbers"]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    new = dict(
        zip([i for i in range(len(shape)) if i not in gone], numbers.offset_dims, strict=True)
    )
    for i in list(new):
        if i in numbers.start_index_map or eqn.params["slice_sizes"][i] != shape[i]:
            del new[i]
    return [_moved(places[0], new)]


def _iota(eqn, places, batch):
    shape = eqn.params["shape"]
    return [Same(frozenset(range(len(shape))) - {eqn.params["dimension"]})]


_ELEMENTWISE = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp
    complex conj convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2
    expm1 floor ge gt imag integer_pow is_finite le lgamma log log1p logistic lt max min mul name ne
    neg nextafter not or pow real reduce_precision rem round rsqrt select_n shift_left
    shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh
    xor
"""

_REDUCTIONS = ("sum", "max", "min", "prod", "and", "or")

RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(("optimization_barrier", "sharding_constraint"), _passed_on),
    **dict.fromkeys(
        (*(f"reduce_{name}" for name in _REDUCTIONS), "argmax", "argmin"),
        _along(lambda eqn: eqn.params["axes"], gone=True),
    ),
    **dict.fromkeys(
        ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "split"),
        _along(lambda eqn: eqn.params["axis"], gone=False),
    ),
    **dict.fromkeys((f"reduce_window_{name}" for name in _REDUCTIONS[:3]), _reduce_window),
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": _concatenate,
    "conv_general_dilated": _conv,
    "dot_general": _dot_general,
    "dynamic_slice": _dynamic_slice,
    "fft": _along(
        lambda eqn: range(len(_shapes(eqn)[0]))[-len(eqn.params["fft_lengths"]) :], gone=False
    ),
    "gather": _gather,
    "iota": _iota,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _along(lambda eqn: eqn.params["dimensions"], gone=False),
    "slice": _slice,
    "sort": _along(lambda eqn: eqn.params["dimension"], gone=False),
    "stack": _stack,
    "squeeze": _along(lambda eqn: eqn.params["dimensions"], gone=True),
    "transpose": _transpose,
}
