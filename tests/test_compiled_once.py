"""The network is compiled twice, forwards and back, whatever is asked of it."""

import os
import re
import subprocess
import sys

EVERYTHING = """
import jax
import ifv_jax as ifv
from tests import networks

objective, weights = networks.objective(), networks.plain_variables()
targets = ifv.sample_targets(jax.random.key(1), 3, features=networks.FEATURES)
config = ifv.FVConfig(adam_steps=4, lbfgs_steps=3, batch_size=2)
found = ifv.visualize(objective, weights, targets, jax.random.key(0), config=config)
kinks = ifv.Perturbations(jax.random.key(2), pairs=2)
predicted = ifv.invert(objective.response, weights, found.v, kinks=kinks)
ifv.reoptimize(objective, weights, found.v, predicted.objective, steps=2, window=7)
ifv.jacobian(objective.response, weights, found.v[:1])
"""


def test_two_programs_hold_a_convolution(tmp_path):
    options = f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text --xla_dump_hlo_pass_re=^$"
    environment = os.environ | {"XLA_FLAGS": options, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    subprocess.run([sys.executable, "-c", EVERYTHING], env=environment, check=True, timeout=600)
    programs = sorted(tmp_path.glob("module_*before_optimizations.txt"))
    assert len(programs) > 10  # it was dumped
    holding = [p.name for p in programs if re.search(r"\bconvolution\(", p.read_text())]
    assert len(holding) == 2, holding
