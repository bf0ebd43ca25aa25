"""What crosses the public boundary is taken, or refused by a sentence: never another exception.

The sweep below knows one valid call of each public name and replaces its arguments, one after the
other, by wrong things. A new public name without an entry fails.
"""

import enum
import importlib
import inspect
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ifv_jax as ifv
from tests import networks

KEY = jax.random.key(0)
FEATURES = networks.FEATURES
VARIABLES = networks.plain_variables()
V = 0.1 * jax.random.normal(KEY, (2, *networks.SHAPE))
TARGETS = jnp.eye(FEATURES)[:2]
RESPONSES = jnp.ones((2, FEATURES))
MAPS = jnp.ones((2, 8, 8, FEATURES))
IMAGES = jnp.full((2, 12, 12, 3), 0.5)
GRAM = np.stack([np.diag(np.arange(1.0, 1 + FEATURES))] * 2)
DATA = ifv.Linearization(RESPONSES, GRAM)
SPACE = ifv.critical_space_from_complement(np.eye(FEATURES)[:, :1])
SPECTRA = ifv.spectra(GRAM)
CANDIDATES = [ifv.Candidate(SPACE, 0.01, 0.02)]


def init(key, batch):
    return jax.random.normal(key, (batch, *networks.SHAPE))


class Call:
    """A valid call, and which of its arguments the sweep leaves as they are."""

    def __init__(self, *args, keep=(), compiles=False, **options):
        self.args, self.options, self.keep, self.compiles = args, options, set(keep), compiles

    def bound(self, function) -> dict[str, Any]:
        if is_enum(function):  # whose signature differs from one Python to the next
            return {"value": self.args[0]}
        return dict(inspect.signature(function).bind(*self.args, **self.options).arguments)


def options(**more):
    return {"chunk": 1, "devices": jax.devices()[:1], **more}


def calls(folder):
    config = ifv.FVConfig(adam_steps=1, lbfgs_steps=0, steps_per_call=1)
    job = {"run": None, "progress": False, "devices": jax.devices()[:1]}
    return {
        "angular_distance": Call(TARGETS, RESPONSES, space=SPACE),
        "approximate_kernel": Call(
            SPECTRA, 0.1, order=[1, 0], tree="balanced", max_angle_deg=45.0
        ),
        "candidate_spaces": Call(
            SPECTRA, tau_min=1e-6, tau_max=0.1, intervals=1, max_removed=3, response=RESPONSES,
            order=None, tree="balanced", max_angle_deg=45.0,
        ),
        "canonical_targets": Call([0, 2], features=3),
        "choose_space": Call(
            CANDIDATES, lambda space: TARGETS, TARGETS, within_deg=1.0, below_random=0.25,
            guesses=4, seed=0,
        ),
        "coefficients": Call(jnp.ones((2, FEATURES, 3)), TARGETS),
        "critical_space_from_complement": Call(
            np.eye(FEATURES)[:, :2], response=RESPONSES, tau=0.1
        ),
        "enumerate_spaces": Call(SPECTRA),
        "fourier": Call((4, 4, 3), scaled=True, decorrelate=True),
        "fraction_outside": Call(SPACE, TARGETS),
        "full_space": Call(4),
        "geometry_image": Call((4, 4), mask="fixed"),
        "hoyer_sparseness": Call(RESPONSES),
        "identity": Call(RESPONSES),
        "invert": Call(
            networks.response(), VARIABLES, V, cosine_power=2.0, space=SPACE, left_vectors=False,
            kinks=ifv.Perturbations(KEY, pairs=2), batch_size=1, progress=False, compiles=True,
            **options(),
        ),
        "jacobian": Call(networks.response(), VARIABLES, V, compiles=True, **options()),
        "linearize": Call(ifv.Jacobian(RESPONSES, jnp.ones((2, FEATURES, 4)))),
        "linearize_all": Call(
            networks.response(), VARIABLES, V, compiles=True, batch_size=1, progress=False,
            **options(),
        ),
        "load_space": Call(folder / "kept.npz", features=FEATURES),
        "make_objective": Call(networks.response(), cosine_power=2.0),
        "make_response": Call(
            networks.plain_apply, ifv.sigmoid_pixels(networks.SHAPE), ifv.max_mean, features=[0, 1]
        ),
        "max_mean": Call(MAPS, window=3, stride=2),
        "mean": Call(MAPS),
        "pick": Call(MAPS, position=(1, 2)),
        "project": Call(SPACE, TARGETS),
        "random_targets": Call(KEY, 2, features=3),
        "reoptimize": Call(
            networks.objective(), VARIABLES, V, TARGETS, steps=1, window=7, learning_rate=0.05,
            batch_size=2, compiles=True, **job,
        ),
        "sample_sparse": Call(KEY, [0.5, 1.0], features=4, among=[0, 2]),
        "sample_targets": Call(KEY, 3, features=4, among=[0, 2], canonical=1),
        "save_space": Call(folder / "space.npz", SPACE),
        "sigmoid_pixels": Call((4, 4, 3), decorrelate=True),
        "significance": Call(RESPONSES, TARGETS, cosine_power=2.0),
        "solve": Call(DATA, cosine_power=2.0, space=SPACE, left_vectors=False),
        "spectra": Call(GRAM),
        "ssim": Call(IMAGES, IMAGES, data_range=1.0, window=7, sigma=1.5, k1=0.01, k2=0.03),
        "status_counts": Call(jnp.zeros(2, jnp.int8)),
        "usable": Call(jnp.zeros(2, jnp.int8)),
        "verdict": Call(jnp.ones(2), jnp.ones(2), threshold=0.9),
        "visualize": Call(
            networks.objective(), VARIABLES, TARGETS, KEY, config=config, start=V, compiles=True,
            **job,
        ),
        "weight_matrix": Call(RESPONSES, cosine_power=2.0),
        # Constructors with checks of their own.
        "ChoiceStatus": Call(next(iter(ifv.ChoiceStatus)).value),
        "FVConfig": Call(
            adam_steps=1, lbfgs_steps=1, learning_rate=0.1, restarts=1, batch_size=1,
            steps_per_call=1, lbfgs_memory=1, jitter=0,
        ),
        "InputError": Call("a", "b", "c"),
        "Objective": Call(networks.response(), 2.0),
        "Parametrization": Call(init, jax.nn.sigmoid, networks.SHAPE, None, abs),
        "Response": Call(
            networks.plain_apply, ifv.sigmoid_pixels(networks.SHAPE), ifv.mean, (0, 1)
        ),
        "Run": Call(folder / "run", {"seed": 1}),
        "Status": Call(0),
        # Plain tuples: what takes them checks them.
        **{
            name: Call(*range(len(getattr(ifv, name)._fields)))
            for name in (
                "Candidate", "Choice", "CriticalSpace", "Jacobian", "Linearization",
                "Perturbations", "Predictions", "Realizations", "Reoptimization", "Spectra",
                "Verdict",
            )
        },
    }  # fmt: skip


WRONG = {
    "None": None,
    "a string": "x",
    "-1": -1,
    "0": 0,
    "2.5": 2.5,
    "True": True,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "a huge integer": 10**30,
    "a complex number": 1j,
    "bytes": b"x",
    "an object": object(),
    "a class": dict,
    "a function": lambda *args: None,
    "an empty list": [],
    "an empty dict": {},
    "a dict": {"a": 1},
    "a set": {1, 2},
    "a ragged list": [[1.0], [1.0, 2.0]],
    "strings in a list": ["a", "b"],
    "a nested list": [[0.5, 0.5]],
    "a NumPy scalar": np.float32(0.5),
    "an array without axes": jnp.asarray(2.0),
    "an array of another shape": jnp.ones((3, 5)),
    "an empty array": jnp.zeros((0, 4)),
    "an array of NaN": jnp.full((2, FEATURES), jnp.nan),
    "an array of integers": np.arange(6).reshape(2, 3),
    "a mask": np.ones(FEATURES, bool),
    "a complex array": jnp.ones((2, FEATURES), jnp.complex64),
    "an array of objects": np.array([object(), None]),
    "a key": KEY,
    "keys": jax.random.split(KEY),
    "a response": networks.response(),
    "an objective": networks.objective(),
    "a parametrization": ifv.sigmoid_pixels((4, 4, 3)),
    "a critical space of another layer": ifv.full_space(9),
    "a device": jax.devices()[0],
    "a configuration": ifv.FVConfig(adam_steps=1, lbfgs_steps=0),
}


@pytest.fixture
def known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a folder named "x" is a folder
    ifv.save_space(tmp_path / "kept.npz", SPACE)
    return calls(tmp_path)


def test_every_public_name_is_known_and_nothing_else_is_exported(known):
    public = {name for name in ifv.__all__ if callable(getattr(ifv, name))}
    assert public == set(known)
    assert sorted(set(ifv.__all__)) == sorted(ifv.__all__)
    exported = {
        name
        for name, value in vars(ifv).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert exported == set(ifv.__all__)


class Compiled(Exception):
    """Something expensive was about to begin."""


def expensive(*args, **kwargs):
    raise Compiled


@pytest.fixture
def nothing_is_compiled(monkeypatch):
    for module, name in (
        ("visualization", "_visualize_group"), ("engine.network", "_make"), ("inversion", "_solve"),
    ):  # fmt: skip
        # Their functions carry the names of some modules.
        monkeypatch.setattr(importlib.import_module(f"ifv_jax.{module}"), name, expensive)


@pytest.mark.parametrize("name", ifv.__all__)
def test_wrong_arguments_are_refused_by_a_sentence(name, known, nothing_is_compiled):
    function = getattr(ifv, name)
    if not callable(function):
        return
    valid = known[name]
    arguments = valid.bound(function)
    escaped = []
    for argument in arguments:
        for what, wrong in WRONG.items():
            if is_enum(function) and hasattr(wrong, "shape"):
                continue  # Python itself compares a value to those of an enum
            try:
                _call(function, {**arguments, argument: wrong})
            except (ifv.InputError, Compiled):
                pass
            except Exception as error:
                escaped.append(f"{argument}={what}: {error!r}"[:200])
    assert not escaped, "\n".join(escaped)


def is_enum(function):
    return inspect.isclass(function) and issubclass(function, enum.Enum)


def _call(function, arguments):
    if is_enum(function):
        return function(arguments["value"])
    signature = inspect.signature(function)
    bound = inspect.BoundArguments(signature, arguments)
    return function(*bound.args, **bound.kwargs)


@pytest.mark.parametrize("name", ifv.__all__)
def test_the_valid_call_is_valid(name, known, nothing_is_compiled):
    function = getattr(ifv, name)
    if callable(function):
        try:
            function(*known[name].args, **known[name].options)
        except Compiled:
            assert known[name].compiles or name == "solve"


# --- what is harmless is taken --------------------------------------------------------------------


@pytest.mark.parametrize(
    "features",
    [
        [4, 1], (4, 1), np.array([4, 1]), jnp.array([4, 1]), np.array([4, 1], np.uint8),
        [np.int64(4), 1], (i for i in (4, 1)), range(4, 0, -3), [np.array(4), jnp.array(1)],
    ],
)  # fmt: skip
def test_features_are_a_tuple_of_integers(features):
    response = ifv.make_response(networks.plain_apply, networks.response().parametrization,
                                 features=features)  # fmt: skip
    assert response.features == (4, 1) and all(type(i) is int for i in response.features)
    assert response.feature_count(VARIABLES) == 2
    assert hash(response) == hash(ifv.Response(
        networks.plain_apply, networks.response().parametrization, ifv.max_mean, [4, 1]
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.array([True, False, True]), "flatnonzero"), ([True, False], "flatnonzero"),
        (jnp.ones(6, bool), "flatnonzero"), ([np.True_, 2], "flatnonzero"),
        (np.array([0.0, 2.0]), "float"), ([0.0, 2.9], "Expected an integer"), ([1.5], "1.5"),
        ([-1, 0], "-1"), ([3, 3], "3 2 times"), ([[0, 1], [2, 3]], r"\[0, 1\]"),
        (np.arange(4).reshape(2, 2), "shape"), ("12", "12"), (3, "got 3"), ({1, 2}, "set"),
        ({1: 2}, "dict"), ([], "none"), (range(0), "none"), (np.array([], int), "none"),
        (range(10**12), "more than"), ([None], "None"), ([float("nan")], "nan"),
        ([jnp.array([1])], "array"), (jax.random.key(0), "array"), (itertools.count(), "more than"),
    ],
)  # fmt: skip
def test_features_are_neither_cut_nor_taken_for_others(features, message):
    with pytest.raises(ifv.InputError, match=message):
        ifv.make_response(networks.plain_apply, networks.response().parametrization,
                          features=features)  # fmt: skip


@pytest.mark.parametrize("feature", [FEATURES, 10**6, 10**30])
def test_a_feature_that_the_layer_does_not_have(feature):
    response = ifv.make_response(
        networks.plain_apply, networks.response().parametrization, features=[0, feature]
    )
    for call in (
        lambda: response.feature_count(VARIABLES),
        lambda: response(VARIABLES, V),
        lambda: ifv.invert(response, VARIABLES, V),
    ):
        with pytest.raises(ifv.InputError, match=f"features below {FEATURES}"):
            call()


@pytest.mark.parametrize(
    "value", [2, np.int32(2), np.uint8(2), np.array(2), jnp.array(2), jnp.int32(2)]
)
def test_configuration_holds_plain_numbers(value):
    config = ifv.FVConfig(
        adam_steps=value, batch_size=value, learning_rate=np.float32(0.5), jitter=value
    )
    assert config == ifv.FVConfig(adam_steps=2, batch_size=2, learning_rate=0.5, jitter=2)
    assert hash(config) == hash(
        ifv.FVConfig(adam_steps=2, batch_size=2, learning_rate=0.5, jitter=2)
    )
    assert type(config.adam_steps) is int and type(config.learning_rate) is float
    assert repr(config) == repr(
        ifv.FVConfig(adam_steps=2, batch_size=2, learning_rate=0.5, jitter=2)
    )


@pytest.mark.parametrize(
    "name", [f for f in ifv.FVConfig.__dataclass_fields__ if f != "learning_rate"]
)
@pytest.mark.parametrize(
    "value", [2.5, 30.0, -1, True, "8", None, float("nan"), [3], np.float32(2)]
)
def test_steps_and_sizes_are_integers(name, value):
    with pytest.raises(ifv.InputError, match=name):
        ifv.FVConfig(**{name: value})


@pytest.mark.parametrize("name", ["batch_size", "steps_per_call", "lbfgs_memory"])
def test_sizes_are_positive(name):
    with pytest.raises(ifv.InputError, match=f"{name} >= 1"):
        ifv.FVConfig(**{name: 0})


@pytest.mark.parametrize(
    "rate", [0, -1.0, float("nan"), float("inf"), "0.1", None, True, 1j, [0.1]]
)
def test_learning_rate(rate):
    with pytest.raises(ifv.InputError, match="learning_rate"):
        ifv.FVConfig(learning_rate=rate)
    with pytest.raises(ifv.InputError, match="learning_rate"):
        ifv.reoptimize(networks.objective(), VARIABLES, V, TARGETS, window=7, learning_rate=rate)


@pytest.mark.parametrize("size", [2.5, 0, -1, True, "8", None, float("nan"), [1], 4.0])
@pytest.mark.parametrize("call", [ifv.invert, ifv.linearize_all])
def test_batch_size(call, size, nothing_is_compiled):
    with pytest.raises(ifv.InputError, match="batch_size"):
        call(networks.response(), VARIABLES, V, batch_size=size)


@pytest.mark.parametrize("chunk", [2.5, 0, -1, True, "8", float("nan"), [1], 4.0])
@pytest.mark.parametrize("call", [ifv.invert, ifv.linearize_all, ifv.jacobian])
def test_chunk(call, chunk, nothing_is_compiled):
    with pytest.raises(ifv.InputError, match="chunk"):
        call(networks.response(), VARIABLES, V, chunk=chunk)


def test_a_device_is_a_list_of_one_and_lists_are_checked():
    device = jax.devices()[0]
    data = ifv.linearize_all(networks.response(), VARIABLES, V, devices=[device])
    for devices in (device, (device,), np.array([device]), (d for d in [device]), None):
        again = ifv.linearize_all(networks.response(), VARIABLES, V, devices=devices)
        np.testing.assert_array_equal(again.gram, data.gram)
    for wrong in ([], "cpu", ["cpu"], 0, [0], [device, device], {}, [None], object()):
        with pytest.raises(ifv.InputError, match="device"):
            ifv.jacobian(networks.response(), VARIABLES, V, devices=wrong)


def test_a_path_is_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments = (networks.objective(), VARIABLES, TARGETS, KEY)
    config = ifv.FVConfig(adam_steps=2, lbfgs_steps=0, steps_per_call=2)
    found = ifv.visualize(*arguments, config=config, run=ifv.Run(tmp_path / "a"))
    for run in (str(tmp_path / "b"), tmp_path / "c", "~/d"):
        again = ifv.visualize(*arguments, config=config, run=run)
        np.testing.assert_array_equal(again.v, found.v)
    assert [len(list((tmp_path / name).glob("visualize_*"))) for name in "abcd"] == [1, 1, 1, 1]
    for wrong in (3, object(), ["a"], True, b""):
        with pytest.raises(ifv.InputError):
            ifv.visualize(*arguments, config=config, run=wrong)


@pytest.mark.parametrize("jitter", [8, 9, 100, 10**9])
def test_jitter_stays_within_the_image(jitter, nothing_is_compiled):
    with pytest.raises(ifv.InputError, match="jitter below 8"):
        ifv.visualize(
            networks.objective(), VARIABLES, TARGETS, KEY, config=ifv.FVConfig(jitter=jitter)
        )
    with pytest.raises(Compiled):
        ifv.visualize(networks.objective(), VARIABLES, TARGETS, KEY, config=ifv.FVConfig(jitter=7))


SWAPPED = {
    "visualize a response": lambda: ifv.visualize(networks.response(), VARIABLES, TARGETS, KEY),
    "invert an objective": lambda: ifv.invert(networks.objective(), VARIABLES, V),
    "an objective of apply": lambda: ifv.make_objective(networks.plain_apply),
    "variables and v": lambda: ifv.invert(networks.response(), V, VARIABLES),
    "key and targets": lambda: ifv.visualize(networks.objective(), VARIABLES, KEY, TARGETS),
    "variables and targets": lambda: ifv.visualize(networks.objective(), TARGETS, VARIABLES, KEY),
    "parametrization and apply": lambda: ifv.make_response(
        ifv.sigmoid_pixels((8, 8, 3)), networks.plain_apply
    ),
    "a shape for a parametrization": lambda: ifv.make_response(networks.plain_apply, (8, 8, 3)),
    "aggregate called": lambda: ifv.make_response(
        networks.plain_apply, ifv.sigmoid_pixels((8, 8, 3)), jnp.ones(3)
    ),
    "kinks as a key": lambda: ifv.invert(networks.response(), VARIABLES, V, kinks=KEY),
    "kinks as True": lambda: ifv.invert(networks.response(), VARIABLES, V, kinks=True),
    "kinks of floats": lambda: ifv.invert(
        networks.response(), VARIABLES, V, kinks=ifv.Perturbations(KEY, pairs=2.5)
    ),
    "a basis for a space": lambda: ifv.invert(networks.response(), VARIABLES, V, space=np.eye(6)),
    "a choice for a space": lambda: ifv.invert(
        networks.response(), VARIABLES, V, space=CANDIDATES[0]
    ),
    "a dict for a configuration": lambda: ifv.visualize(
        networks.objective(), VARIABLES, TARGETS, KEY, config={"adam_steps": 3}
    ),
    "an image for v": lambda: ifv.invert(networks.response(), VARIABLES, np.zeros((8, 8, 3), "f4")),
    "solve of a Jacobian": lambda: ifv.solve(ifv.Jacobian(RESPONSES, jnp.ones((2, FEATURES, 4)))),
    "linearize of an array": lambda: ifv.linearize(jnp.ones((2, FEATURES, 4))),
}


@pytest.mark.parametrize("case", SWAPPED)
def test_swapped_arguments(case, nothing_is_compiled):
    with pytest.raises(ifv.InputError, match=r"Expected .*; got .*\. "):
        SWAPPED[case]()


def test_small_images_can_be_reoptimized_with_a_smaller_window(nothing_is_compiled):
    arguments = (networks.objective(), VARIABLES, V, TARGETS)
    with pytest.raises(ifv.InputError, match="Pass window=7"):
        ifv.reoptimize(*arguments)
    with pytest.raises(Compiled):
        ifv.reoptimize(*arguments, window=7)
    for wrong in (4, 0, 9, 2.5, "7", True):
        with pytest.raises(ifv.InputError, match=r"window|8 x 8"):
            ifv.reoptimize(*arguments, window=wrong)


@pytest.mark.parametrize("size", [(4, 4), (5, 9), (2, 8), (1, 1)])
def test_the_window_that_is_proposed_fits(size):
    images = jnp.full((1, *size, 1), 0.5)
    with pytest.raises(ifv.InputError) as caught:
        ifv.ssim(images, images)
    window = int(str(caught.value).split("window=")[1].split(",")[0])
    np.testing.assert_allclose(ifv.ssim(images, images, window=window), 1)
