"""The start of every script: use all cores, keep compiled programs, print log messages."""

import logging
import os
import sys
from pathlib import Path

import jax

from models.provenance import cores


def start() -> None:
    """Call before anything touches a device.

    On the CPU each core becomes a device of its own: lanes are spread over them, which is faster
    than sharing the cores within each operation. Compiled programs are kept in ~/.cache/ifv_jax
    (JAX_COMPILATION_CACHE_DIR overrides).
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    jax.config.update("jax_num_cpu_devices", cores())
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path.home() / ".cache" / "ifv_jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
