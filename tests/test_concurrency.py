"""Several calls at once: in order, in the settings of the caller, errors and all."""

import threading

import jax
import jax.numpy as jnp
import pytest

from ifv_jax.engine import concurrency

ONE = jax.devices()[:1]


@pytest.fixture(autouse=True)
def three_cores(monkeypatch):
    monkeypatch.setattr(concurrency, "_cores", lambda: 3)


def test_results_come_in_order_and_the_first_call_is_made_alone():
    started, order = threading.Event(), []

    def function(item):
        order.append(item)
        if item == 1:
            started.wait(10)  # the second call waits for the third
        if item == 2:
            started.set()
        return 10 * item

    assert concurrency.concurrently(function, range(5), ONE) == [0, 10, 20, 30, 40]
    assert order[0] == 0 and started.is_set()


def test_threads_have_the_settings_of_the_caller():
    def dtype(_):
        return jnp.zeros(1).dtype, jax.config.jax_default_matmul_precision

    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        found = concurrency.concurrently(dtype, range(4), ONE)
    assert found == [(jnp.float64, "highest")] * 4
    assert concurrency.concurrently(dtype, range(4), ONE)[-1][0] == jnp.float32


def test_an_error_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        concurrency.concurrently(lambda item: 1 // (2 - item), range(5), ONE)


def test_what_is_traced_stays_in_its_thread():
    here = threading.get_ident()
    function = lambda _: threading.get_ident()  # noqa: E731
    assert concurrency.concurrently(function, range(5), ONE, traced=True) == [here] * 5
    assert concurrency.workers(ONE * 2) == 1 and concurrency.workers(ONE) == 3
