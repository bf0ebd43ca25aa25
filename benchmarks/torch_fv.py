"""Feature Visualization and its inversion as one writes them in PyTorch, to be measured against.

Channels-last, weights frozen, `torch.optim.Adam` on the pixels of a batch, `torch.optim.LBFGS` with
its strong Wolfe search image by image (a batch would share one search), Jacobians by one backward
pass a row, and an SVD.
"""

# PyTorch is optional: without it this file is not imported.
# pyright: reportMissingImports=false

from collections.abc import Callable

import torch
from torch.nn import functional as F


def max_mean(features: torch.Tensor) -> torch.Tensor:
    """(B, n, h, w) -> (B, n)."""
    return F.max_pool2d(features, 3, 2).mean((2, 3))


def response(network: Callable, v: torch.Tensor) -> torch.Tensor:
    """v (B, 3, H, W), any real numbers -> aggregated features (B, n)."""
    return network(torch.sigmoid(v))


def significance(r: torch.Tensor, t: torch.Tensor, k: float = 2.0) -> torch.Tensor:
    """<r, t> |cos(r, t)|^k, (B,)."""
    dot = (r * t).sum(1)
    return dot * (dot.abs() / r.norm(dim=1).clamp_min(1e-20)) ** k


def adam(network, v, t, steps: int, rate: float = 0.05) -> torch.Tensor:
    """v after `steps` steps on all images of the batch at once."""
    v = v.clone(memory_format=torch.channels_last).requires_grad_(True)
    optimizer = torch.optim.Adam([v], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss = -significance(response(network, v), t).sum()
        loss.backward()
        optimizer.step()
    return v.detach()


def lbfgs(network, v, t, steps: int) -> torch.Tensor:
    """v after up to `steps` steps on each image alone."""
    found = []
    for i in range(len(v)):
        # (1, H, W, 3), since LBFGS wants contiguous parameters; permuted it is channels-last.
        one = v[i : i + 1].permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
        one.requires_grad_(True)
        optimizer = torch.optim.LBFGS(
            [one],
            max_iter=steps,
            max_eval=100 * steps,
            history_size=10,
            tolerance_grad=0,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )

        def closure(one=one, optimizer=optimizer, i=i):
            optimizer.zero_grad(set_to_none=True)
            image = one.permute(0, 3, 1, 2)
            loss = -significance(response(network, image), t[i : i + 1]).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        found.append(one.detach().permute(0, 3, 1, 2))
    return torch.cat(found)


def jacobian(network, v) -> tuple[torch.Tensor, torch.Tensor]:
    """(r (n,), J (n, m)) at one image v (1, 3, H, W), a backward pass a row."""
    v = v.clone(memory_format=torch.channels_last).requires_grad_(True)
    r = response(network, v)[0]
    rows = [torch.autograd.grad(r[i], v, retain_graph=True)[0].reshape(-1) for i in range(len(r))]
    return r.detach(), torch.stack(rows)


def invert(r: torch.Tensor, j: torch.Tensor, k: float = 2.0) -> torch.Tensor:
    """The unit objective by the closed form, an SVD of W J."""
    unit = r / r.norm()
    w = (k + 1) * torch.eye(len(r)) - k * unit[:, None] * unit[None]
    live = j.abs().amax(1) > 0
    left = torch.linalg.svd((w @ j)[live], full_matrices=False)[0][:, -1]
    t = torch.zeros_like(r)
    t[live] = left
    return t * torch.sign(t @ r)
