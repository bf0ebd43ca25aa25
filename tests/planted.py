"""Jacobians whose common cokernel is known, and what the tests of critical spaces share."""

import numpy as np
from hypothesis import strategies as st

from ifv_jax.critical_kernel import spectra

SEEDS = st.integers(0, 2**32 - 1)


def orthonormal(rng, n, k):
    return np.linalg.qr(rng.standard_normal((n, k)))[0]


def planted(rng, *, common, samples=8, extra=1, noise=0.0, small=1e-3, m=25):
    """Jacobians (samples, n, m) that share a cokernel, `extra` more small directions of their own,
    and all other singular values between 0.3 and 1; `noise` tilts the shared ones, in radians."""
    n, u = common.shape
    jacobians = []
    for _ in range(samples):
        left = orthonormal(rng, n, n)
        left[:, :u] = common + noise * rng.standard_normal((n, u)) / n**0.5
        left = np.linalg.qr(left)[0]
        values = rng.uniform(0.3, 1, n)
        values[:u] = small * rng.uniform(0.1, 1, u) * (noise > 0)
        values[u : u + extra] = small * rng.uniform(0.1, 1, extra)
        values[-1] = 1
        jacobians.append(left * values @ orthonormal(rng, m, n).T * rng.uniform(0.1, 10))
    return np.array(jacobians)


def spectra_of(jacobians):
    return spectra(jacobians @ jacobians.transpose(0, 2, 1))


def messy(rng, *, n=6, samples=5):
    """Jacobians whose spectra decay evenly towards partly shared directions: no clear answer."""
    shared = orthonormal(rng, n, n)
    jacobians = []
    for _ in range(samples):
        left = np.linalg.qr(shared + 0.3 * rng.standard_normal((n, n)))[0]
        values = 10.0 ** rng.uniform(-3, 0, n)
        jacobians.append(left * np.sort(values) @ orthonormal(rng, 2 * n, n).T)
    return np.array(jacobians)


COMMON = {
    "ones": np.ones((10, 1)) / 10**0.5,
    "axis": np.eye(10)[:, [4]],
    "both": np.linalg.qr(np.stack([np.ones(10), np.eye(10)[4]], 1))[0],
    "none": np.zeros((10, 0)),
}
