"""Naive float64 versions of what the library does fast. Slow, short, and hopefully obvious."""

import numpy as np


def significance(r, t, k):
    """S_k = <r, t> |cos(r, t)|^k, straight from the formula."""
    r, t = np.asarray(r, np.float64), np.asarray(t, np.float64)
    dot = r @ t
    length = np.linalg.norm(r)
    return 0.0 if length == 0 else dot * np.abs(dot / length) ** k


def weight_matrix(r, k):
    """W(r) = (k + 1) I - k rh rh^T."""
    rh = np.asarray(r, np.float64) / np.linalg.norm(r)
    return (k + 1) * np.eye(len(rh)) - k * np.outer(rh, rh)


def invert(r, j, k, basis=None):
    """Opt. 3 by a float64 SVD: t = B y, y the last left singular vector of B^T W J; <r, t> > 0."""
    r, j = np.asarray(r, np.float64), np.asarray(j, np.float64)
    basis = np.eye(len(r)) if basis is None else basis
    left, sigma, _ = np.linalg.svd(basis.T @ weight_matrix(r, k) @ j)
    sigma = np.concatenate([sigma, np.zeros(left.shape[0] - len(sigma))])
    t = basis @ left[:, -1]
    return t * np.sign(r @ t), sigma[::-1]


def angle(a, b):
    """Degrees between two vectors."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return np.degrees(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))


def max_pool(x, window, stride):
    """Windows that fit, one by one: (batch, h, w, c)."""
    _, h, w, _ = x.shape
    wy, wx = min(window, h), min(window, w)
    rows = [
        [x[:, y : y + wy, z : z + wx].max((1, 2)) for z in range(0, w - wx + 1, stride)]
        for y in range(0, h - wy + 1, stride)
    ]
    return np.asarray(rows).transpose(2, 0, 1, 3)


def with_spectrum(rng, sigma, columns):
    """A random n x columns float32 matrix with (nearly) these singular values."""
    n = len(sigma)
    left = np.linalg.qr(rng.standard_normal((n, n)))[0]
    right = np.linalg.qr(rng.standard_normal((columns, n)))[0]
    return (left * np.asarray(sigma) @ right.T).astype(np.float32)
