"""Parameters v, weights and images that do not belong to the job are named."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ifv_jax as ifv
from ifv_jax.checks.job import check_parameters
from tests import networks

VARIABLES = networks.plain_variables()
RESPONSE = networks.response()
PHI = RESPONSE.parametrization
V = 0.1 * jax.random.normal(jax.random.key(0), (2, *networks.SHAPE))
FOURIER = ifv.fourier(networks.SHAPE)


class Parts(NamedTuple):
    a: jax.Array
    b: jax.Array


def parts(build, take):
    """A parametrization whose v is a pytree of two arrays."""
    return ifv.Parametrization(
        init=lambda key, batch: build(
            jax.random.normal(key, (batch, 8, 8, 1)), jnp.zeros((batch, 8, 8, 2))
        ),
        apply=lambda v: jax.nn.sigmoid(jnp.concatenate(take(v), axis=-1)),
        shape=networks.SHAPE,
    )


TREES = {
    "dict": parts(lambda a, b: {"a": a, "b": b}, lambda v: [v["a"], v["b"]]),
    "tuple": parts(lambda a, b: (a, b), list),
    "list": parts(lambda a, b: [a, b], list),
    "NamedTuple": parts(Parts, list),
    "nested": parts(lambda a, b: {"x": (a, {"y": b})}, lambda v: [v["x"][0], v["x"][1]["y"]]),
}


@pytest.mark.parametrize("tree", TREES)
def test_any_pytree_of_parameters_is_taken(tree):
    phi = TREES[tree]
    response = ifv.make_response(networks.plain_apply, phi)
    v = phi.init(jax.random.key(0), 2)
    found = check_parameters(phi, jax.tree.map(np.asarray, v))
    assert jax.tree.structure(found) == jax.tree.structure(v)
    jax.tree.map(np.testing.assert_array_equal, found, v)
    leaves, structure = jax.tree.flatten(v)
    uneven = jax.tree.unflatten(structure, [leaves[0], leaves[1][:1]])
    unbatched = jax.tree.map(lambda a: a[0], v)
    other = jax.tree.unflatten(structure, [leaves[0], leaves[1][..., :1]])
    for wrong, message in (
        (uneven, r"\[1, 2\] samples"), (unbatched, "batch axis"), (other, "of shape"),
        (V, "pytree"), (leaves[0], "pytree"), ({"a": leaves[0]}, "pytree"), ({}, "no array"),
    ):  # fmt: skip
        for call in (ifv.invert, ifv.linearize_all, ifv.jacobian):
            with pytest.raises(ifv.InputError, match=message):
                call(response, VARIABLES, wrong)


WRONG = {
    "another size": (jnp.zeros((2, 16, 16, 3)), r"\(batch, 8, 8, 3\).*\(2, 16, 16, 3\)"),
    "one pixel less": (jnp.zeros((2, 8, 7, 3)), r"\(2, 8, 7, 3\)"),
    "another channel": (jnp.zeros((2, 8, 8, 4)), r"\(2, 8, 8, 4\)"),
    "channels first": (jnp.zeros((2, 3, 8, 8)), r"\(2, 3, 8, 8\)"),
    "no batch axis": (jnp.zeros(networks.SHAPE), r"v\[None\]"),
    "no batch axis, square": (jnp.zeros((8, 8)), "of shape"),
    "an axis too many": (jnp.zeros((1, 2, 8, 8, 3)), "of shape"),
    "a spectrum": (FOURIER.init(jax.random.key(0), 2), "of shape"),
    "empty": (jnp.zeros((0, *networks.SHAPE)), "empty batch"),
    "integers": (jnp.zeros((2, *networks.SHAPE), int), "int32"),
    "bytes": (np.zeros((2, *networks.SHAPE), np.uint8), "uint8"),
    "booleans": (np.zeros((2, *networks.SHAPE), bool), "bool"),
    "complex": (jnp.zeros((2, *networks.SHAPE), jnp.complex64), "complex64"),
    "objects": (np.full((2, *networks.SHAPE), None), "object"),
    "nested lists": (np.zeros((2, *networks.SHAPE)).tolist(), "0.0 in it"),
    "a list of samples": ([V[0], V[1]], "pytree"),
    "nothing": (None, "no array"),
    "a number": (0.5, "0.5 in it"),
    "a string": ("image.png", "image.png"),
    "realizations": ({"v": V}, "pytree"),
}


@pytest.mark.parametrize("case", WRONG)
def test_parameters_that_are_not_the_parametrizations_own(case):
    v, message = WRONG[case]
    for call in (
        lambda: ifv.invert(RESPONSE, VARIABLES, v),
        lambda: ifv.linearize_all(RESPONSE, VARIABLES, v),
        lambda: ifv.jacobian(RESPONSE, VARIABLES, v),
        lambda: ifv.reoptimize(networks.objective(), VARIABLES, v, jnp.eye(6)[:2], window=7),
    ):
        with pytest.raises(ifv.InputError, match=message):
            call()
    if v is not None:
        with pytest.raises(ifv.InputError):
            ifv.visualize(
                networks.objective(), VARIABLES, jnp.eye(6)[:2], jax.random.key(0), start=v
            )


def test_one_start_for_each_target():
    with pytest.raises(ifv.InputError, match="2 samples, one a target; got 1 in `start`"):
        ifv.visualize(
            networks.objective(), VARIABLES, jnp.eye(6)[:2], jax.random.key(0), start=V[:1]
        )
    with pytest.raises(ifv.InputError, match="samples"):
        ifv.reoptimize(networks.objective(), VARIABLES, V[:1], jnp.eye(6)[:2], window=7)


def test_a_network_of_any_size_is_not_asked_about_another():
    for call in (
        lambda v: RESPONSE(VARIABLES, v), jax.jit(lambda v: RESPONSE(VARIABLES, v)),
        jax.grad(lambda v: RESPONSE(VARIABLES, v).sum()),
    ):  # fmt: skip
        assert call(V) is not None
        with pytest.raises(ifv.InputError, match="images of another size"):
            call(jnp.zeros((2, 16, 16, 3)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, jnp.bfloat16])
def test_numpy_arrays_and_other_floats_are_taken(dtype):
    v = check_parameters(PHI, np.asarray(V).astype(dtype))
    assert isinstance(v, jax.Array) and v.shape == V.shape
    assert v.dtype == (np.float32 if dtype is np.float64 else dtype)


def test_non_finite_parameters_are_a_status():
    found = ifv.invert(RESPONSE, VARIABLES, V.at[0].set(jnp.nan))
    assert found.status.tolist() == [ifv.Status.NON_FINITE, ifv.Status.OK]


def test_a_start_that_cannot_be_traced_blocks_nothing():
    def init(key, batch):
        return jnp.asarray(np.asarray(jax.random.key_data(key), "f4") * np.ones((batch, 1)))

    phi = ifv.Parametrization(init, PHI.apply, networks.SHAPE)
    assert check_parameters(phi, V).shape == V.shape
    with pytest.raises(ifv.InputError, match="images of another size"):
        check_parameters(phi, jnp.zeros((2, 5, 5, 3)))
    with pytest.raises(ifv.InputError, match=r"parametrization.apply turns into"):
        check_parameters(phi, {"a": V})


def test_parameters_may_be_traced():
    assert jax.jit(lambda v: check_parameters(PHI, v))(V).shape == V.shape


@pytest.mark.parametrize(
    "variables",
    ["weights", {"w": "x"}, [object()], {"w": np.array(["a"])}, {"w": np.array([None])}, print,
     {"w": 10**30}, jax.numpy],
)  # fmt: skip
def test_weights_are_arrays(variables):
    for call in (
        lambda: RESPONSE.feature_count(variables), lambda: RESPONSE(variables, V),
        lambda: ifv.invert(RESPONSE, variables, V),
    ):  # fmt: skip
        with pytest.raises(ifv.InputError, match="variables"):
            call()


# --- parametrizations -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [[8, 8, 3], (8, 8, 3), np.array([8, 8, 3]), (np.int64(8), 8, 3)])
def test_shapes_are_tuples_of_integers(shape):
    made = (
        ifv.sigmoid_pixels(shape), ifv.fourier(shape), ifv.Parametrization(abs, abs, shape),
        ifv.geometry_image(shape[:2]),
    )  # fmt: skip
    for phi in made:
        assert phi.shape[:2] == (8, 8) and all(type(size) is int for size in phi.shape)
        assert isinstance(phi.shape, tuple) and isinstance(hash(phi), int)
    response = ifv.make_response(networks.plain_apply, ifv.sigmoid_pixels(shape))
    assert response.feature_count(VARIABLES) == networks.FEATURES


@pytest.mark.parametrize(
    "shape",
    [(8, 8), (8, 8, 3, 1), (8.0, 8, 3), (8, 0, 3), (8, -8, 3), "883", 8, None, (True, 8, 3),
     ("8", 8, 3), {8, 3}, np.zeros((8, 8, 3)), (None, 8, 3), (2.5, 8, 3), float("nan")],
)  # fmt: skip
def test_what_is_no_shape(shape):
    for make in (
        ifv.sigmoid_pixels, ifv.fourier, lambda shape: ifv.Parametrization(abs, abs, shape),
    ):  # fmt: skip
        with pytest.raises(ifv.InputError, match="image shape"):
            make(shape)
    if not (isinstance(shape, tuple) and len(shape) == 2):
        with pytest.raises(ifv.InputError, match="size"):
            ifv.geometry_image(shape)


@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize("wrong", ["x", 3, object(), jnp.zeros(3), {}])
def test_a_parametrization_is_made_of_functions(position, wrong):
    fields = [PHI.init, PHI.apply, networks.SHAPE, PHI.invert, PHI.in_unit_range]
    fields[position] = wrong
    with pytest.raises(ifv.InputError):
        ifv.Parametrization(*fields)


# --- images ---------------------------------------------------------------------------------------

GREY = ifv.sigmoid_pixels((8, 8, 1))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), "255"),
        (np.full((2, 8, 8, 3), 200.0, np.float32), "values from 200 to 200.*255"),
        (np.full((2, 8, 8, 3), np.nan), "nan"), (np.full((2, 8, 8, 3), np.inf), "inf"),
        (np.full((2, 8, 8, 3), -1.0), "Preprocessing"), (np.full((2, 8, 8, 3), 1.001), "1.001"),
        (np.full((2, 8, 8, 3), -1e-5), "values from -1e-05"),
        (np.zeros((2, 3, 8, 8), "f4"), r"transpose\(0, 2, 3, 1\)"),
        (np.zeros((2, 8, 8), "f4"), r"\[..., None\].repeat\(3, -1\)"),
        (np.zeros((8, 8, 3), "f4"), r"images\[None\]"), (np.zeros((0, 8, 8, 3)), "empty batch"),
        (np.zeros((2, 9, 9, 3), "f4"), "resize"), (np.zeros((2, 8, 8, 3), complex), "complex"),
        (np.zeros((2, 8, 8, 3), bool), "bool"), ("image.png", "image.png"), (None, "None"),
        ([[1.0], [1.0, 2.0]], "list"), (np.full((2, 8, 8, 3), None), "of shape"),
    ],
)  # fmt: skip
def test_images_that_are_none(images, message):
    for phi in (PHI, FOURIER):
        with pytest.raises(ifv.InputError, match=message):
            phi.invert(images)


def test_a_grey_image_wants_its_channel_axis():
    with pytest.raises(ifv.InputError, match=r"images\[..., None\]\."):
        GREY.invert(np.zeros((2, 8, 8), "f4"))


@pytest.mark.parametrize("off", [1e-6, 1e-7, 1e-12])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_pixels_off_by_rounding_are_clipped(off, dtype):
    for value in (0, 1):
        images = np.full((1, 8, 8, 3), value, dtype)
        moved = images + dtype(off if value else -off)
        np.testing.assert_array_equal(PHI.invert(moved), PHI.invert(images))
    assert jax.jit(PHI.invert)(jnp.full((1, 8, 8, 3), 0.5)).shape == (1, 8, 8, 3)


def test_depth_and_mask_off_by_rounding_are_clipped():
    phi = ifv.geometry_image((4, 4))
    images = phi.apply(phi.init(jax.random.key(0), 1)).at[..., 0].set(1 + 1e-6)
    exact = phi.invert(images.at[..., 0].set(1))
    np.testing.assert_array_equal(phi.invert(images), exact)
    with pytest.raises(ifv.InputError, match="mask and depth"):
        phi.invert(images.at[..., 4].set(1.001))
    for wrong in ("x", None, jnp.zeros((1, 4, 4, 5), int), np.zeros((1, 4, 4, 5), np.uint8)):
        with pytest.raises(ifv.InputError, match="geometry images"):
            phi.invert(wrong)
