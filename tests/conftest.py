"""Everything that holds for all tests: their order, the slow ones, and Hypothesis's profile."""

import os

import jax
import pytest
from hypothesis import settings

# The examples are the same in every run, and a slow machine fails none of them. A test that needs
# another number of examples says so: `@settings(max_examples=12)`.
settings.register_profile("ifv_jax", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("ifv_jax")

LONGEST = (
    "test_devices.py",
    "test_visualization.py",
    "test_same_job.py",
    "test_training.py",
    "test_srnet_training.py",
    "test_low_precision.py",
    "test_kinks.py",
    "test_readme.py",
    "test_shapes.py",
    "test_benchmarks.py",
    "test_compiled_once.py",
)
"""Modules that begin first, so that no worker is left with a long one at the end."""

SLOW = (
    "test_devices.py::test_four_devices_have_the_bits_of_one",
    "test_devices.py::test_two_hosts_share_the_work_and_have_the_bits_of_one",
    "test_kinks.py::test_round_off_changes_little_off_kinks",
    "test_visualization.py::test_killed_and_resumed_is_bit_identical",
    "test_readme.py::test_the_readmes_python_runs",
    "test_srnet_training.py::test_a_training_resumes_to_the_same_bits",
    "test_training.py::test_killed_and_resumed_is_bit_identical",
    "test_training.py::test_a_training_goes_on_from_finished_weights",
    "test_training.py::test_damaged_checkpoint_falls_back_to_the_one_before",
    "test_benchmarks.py::test_an_experiment_from_start_to_summary",
    "test_benchmarks.py::test_a_script_draws_from_its_records",
    "test_shapes.py::test_annotations_hold_in_a_run_of_the_library",
    "test_compiled_once.py::test_two_programs_hold_a_convolution",
)
"""Tests of more than about half a minute, as `module::test`. They are marked `slow`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the slow tests and moves the longest modules to the front."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))
    for item in items:
        if f"{item.path.name}::{getattr(item, 'originalname', item.name)}" in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """A worker and the processes that its tests start do not compile the same program twice.

    Each worker has a folder of its own, which begins empty.
    """
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    for name, value in options.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
