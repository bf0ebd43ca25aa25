"""Naive versions of targets, Algorithm 1 and SSIM: literal, slow, float64, NumPy and SciPy only."""

import numpy as np
import scipy.optimize
import scipy.signal


def projector(basis):
    """The orthogonal projector onto the columns: the form in which subspaces are compared."""
    return basis @ basis.T


def merge(p, q, weight, max_angle_deg):
    """Principal vectors from the cosines alone, one pair at a time, interpolated by the book."""
    y, _, zt = np.linalg.svd(p.T @ q, full_matrices=False)
    merged = []
    for left, right in zip((p @ y).T, (q @ zt.T).T, strict=True):
        angle = 2 * np.arctan2(np.linalg.norm(left - right), np.linalg.norm(left + right))
        if angle >= np.deg2rad(max_angle_deg):
            continue
        if angle < 1e-12:
            merged.append(left)
        else:
            merged.append(
                (np.sin((1 - weight) * angle) * left + np.sin(weight * angle) * right)
                / np.sin(angle)
            )
    return np.array(merged).T if merged else np.zeros((p.shape[0], 0))


def kernel(jacobians, tau, *, order=None, tree="balanced", max_angle_deg=45.0):
    """Algorithm 1 from the Jacobians themselves, as a recursion over the merging tree."""

    def start(j):
        u, s, _ = np.linalg.svd(j)
        s = np.concatenate([s, np.zeros(len(j) - len(s))])  # more features than parameters
        return u[:, s <= tau * s[0]]

    def combine(a, b):
        (p, m), (q, k) = a, b
        return merge(p, q, k / (m + k), max_angle_deg), m + k

    level = [(start(jacobians[i]), 1) for i in (order or range(len(jacobians)))]
    if tree == "sequential":
        result = level[0]
        for other in level[1:]:
            result = combine(result, other)
        return result[0]
    while len(level) > 1:
        halves = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [combine(*half) if len(half) == 2 else half[0] for half in halves]
    return level[0][0]


def hoyer_projection(point, sparseness):
    """The same projection by another theorem: max(0, point - shift), normalized.

    M. Thom and G. Palm, "Sparse Activity and Sparse Connectivity in Supervised Learning", JMLR 14
    (2013): the shift is the root of a monotone function.
    """
    n = point.size
    goal = np.sqrt(n) - sparseness * (np.sqrt(n) - 1)

    def excess(shift):
        kept = np.maximum(point - shift, 0)
        return kept.sum() / np.linalg.norm(kept) - goal

    top = np.sort(point)
    low, high = top[0] - 1e6 * (1 + np.abs(point).max()), top[-1] - 1e-9 * (top[-1] - top[-2])
    kept = np.maximum(point - scipy.optimize.brentq(excess, low, high, xtol=1e-13), 0)
    return kept / np.linalg.norm(kept)


def ssim(a, b, *, data_range=1.0, window=11, sigma=1.5, k1=0.01, k2=0.03):
    """SSIM of two images (H, W, C) with a full two-dimensional window."""
    offset = np.arange(window) - window // 2
    kernel = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    values = []
    for channel in range(a.shape[-1]):
        x, y = a[..., channel].astype(float), b[..., channel].astype(float)
        mean_x, mean_y, square_x, square_y, product = (
            scipy.signal.convolve2d(z, kernel, mode="valid") for z in (x, y, x * x, y * y, x * y)
        )
        var_x, var_y = square_x - mean_x**2, square_y - mean_y**2
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        structure = (2 * (product - mean_x * mean_y) + c2) / (var_x + var_y + c2)
        values.append((luminance * structure).mean())
    return np.mean(values)
