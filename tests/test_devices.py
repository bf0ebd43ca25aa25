"""Several devices, several hosts: the same bits as on one; off kinks, the same up to round-off."""

import socket
import subprocess
import sys

import numpy as np

from ifv_jax.engine.storage import Stage

FOUR_DEVICES = """
import jax
jax.config.update("jax_num_cpu_devices", 4)
from dataclasses import replace
import numpy as np
import ifv_jax as ifv
from ifv_jax.engine import network
from tests import networks, oracles
count = 6  # does not divide by four
targets = ifv.sample_targets(jax.random.key(1), count, features=networks.FEATURES)
arguments = (networks.objective(), networks.plain_variables(), targets, jax.random.key(7))
one, four = jax.devices()[:1], jax.devices()
config = ifv.FVConfig(adam_steps=30, lbfgs_steps=20, steps_per_call=10, jitter=2)
both = [ifv.visualize(*arguments, config=config, devices=used) for used in (four, one)]
jax.tree.map(np.testing.assert_array_equal, *both)
# Forwards and back, with jitter and (L-BFGS) without, once for each number of devices.
assert network.compiled(networks.objective().response) == 8
phi = ifv.sigmoid_pixels(networks.SHAPE)
phi = replace(phi, apply=lambda v, phi=phi: phi.apply(v / np.array([0.3, 0.7, 1.7], "f4")))
divisions = ifv.make_objective(ifv.make_response(networks.dividing_apply, phi, ifv.mean))
config = ifv.FVConfig(adam_steps=5, lbfgs_steps=5)
arguments = (divisions, *arguments[1:])
jax.tree.map(
    np.testing.assert_array_equal,
    *(ifv.visualize(*arguments, config=config, devices=used) for used in (four, one)),
)
v = both[0].v


def inverted(**options):
    for used, size in ((four, 8), (one, 8), (one, 4)):
        yield ifv.invert(
            networks.response(), networks.plain_variables(), v, left_vectors=True,
            devices=used, batch_size=size, **options,
        )


first, *others = inverted()
for other in others:
    jax.tree.map(np.testing.assert_array_equal, first, other)
jacobians = [
    ifv.jacobian(networks.response(), networks.plain_variables(), v, devices=used)
    for used in (four, one)
]
jax.tree.map(np.testing.assert_array_equal, *jacobians)
for deviation in (1e-5, 1.5e-4, 1e-3):
    around = ifv.Perturbations(jax.random.key(3), pairs=2, deviation=deviation)
    first, *others = inverted(kinks=around)
    for other in others:
        np.testing.assert_array_equal(first.status, other.status)
        for a, b in zip(first.objective, other.objective, strict=True):
            assert oracles.angle(a, b) < 0.1
"""


def test_four_devices_have_the_bits_of_one():
    done = subprocess.run([sys.executable, "-c", FOUR_DEVICES], timeout=600, check=False)
    assert done.returncode == 0


HOST = """
import sys
import jax
folder, out, port, hosts, host = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", 2)
if int(hosts) > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", int(hosts), int(host))
import numpy as np
import ifv_jax as ifv
from tests import networks
targets = ifv.sample_targets(jax.random.key(1), 5, features=networks.FEATURES)
weights = networks.plain_variables()
config = ifv.FVConfig(adam_steps=20, lbfgs_steps=10, steps_per_call=5, batch_size=2)
found = ifv.visualize(
    networks.objective(), weights, targets, jax.random.key(7), config=config, run=ifv.Run(folder)
)
predictions = ifv.invert(networks.response(), weights, found.v, batch_size=2)
np.savez(f"{out}_{host}.npz", *map(np.asarray, jax.tree.leaves((found, predictions))))
"""


def run_hosts(folder, out, hosts):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen([sys.executable, "-c", HOST, *map(str, (folder, out, port, hosts, host))])
        for host in range(hosts)
    ]
    assert [process.wait(600) for process in started] == [0] * hosts
    results = []
    for host in range(hosts):
        with np.load(f"{out}_{host}.npz") as arrays:
            results.append([arrays[name] for name in arrays.files])
    return results


def test_two_hosts_share_the_work_and_have_the_bits_of_one(tmp_path):
    (alone,) = run_hosts(tmp_path / "alone", tmp_path / "alone_result", 1)
    both = run_hosts(tmp_path / "shared", tmp_path / "result", 2)
    for found in both:
        for a, b in zip(found, alone, strict=True):
            np.testing.assert_array_equal(a, b)
    # Three groups, each kept by the host that made it; one host can go on from what two left.
    groups = sorted(p.name for p in (tmp_path / "shared").glob("visualize_*/group_*"))
    assert groups == [f"group_{first:05d}_of_2" for first in (0, 2, 4)]
    (folder,) = (tmp_path / "shared").glob("visualize_*")
    assert all(Stage(folder, name).newest() is not None for name in groups)
    (again,) = run_hosts(tmp_path / "shared", tmp_path / "again", 1)
    for a, b in zip(again, alone, strict=True):
        np.testing.assert_array_equal(a, b)
