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


def response(network: Callable, v: torch.Tensor, features: slice) -> torch.Tensor:
    """max-mean of a layer's features: v (B, 3, H, W), any real -> (B, n)."""
    activations = network(torch.sigmoid(v))[:, features]
    return F.max_pool2d(activations, 3, 2).mean((2, 3))


def significance(r: torch.Tensor, t: torch.Tensor, k: float = 2.0) -> torch.Tensor:
    """<r, t> |cos(r, t)|^k, (B,)."""
    dot = (r * t).sum(1)
    return dot * (dot.abs() / r.norm(dim=1).clamp_min(1e-20)) ** k


def adam(network, features, v, t, steps: int, rate: float = 0.05) -> torch.Tensor:
    """v after `steps` steps on all images of the batch at once."""
    v = v.clone(memory_format=torch.channels_last).requires_grad_(True)
    optimizer = torch.optim.Adam([v], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss = -significance(response(network, v, features), t).sum()
        loss.backward()
        optimizer.step()
    return v.detach()


def lbfgs(network, features, v, t, steps: int) -> tuple[torch.Tensor, int]:
    """(v after up to `steps` steps on each image alone, evaluations in all)."""
    found, evaluations = [], 0
    for i in range(len(v)):
        one = v[i : i + 1].clone(memory_format=torch.channels_last).requires_grad_(True)
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
            nonlocal evaluations
            evaluations += 1
            optimizer.zero_grad(set_to_none=True)
            loss = -significance(response(network, one, features), t[i : i + 1]).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        found.append(one.detach())
    return torch.cat(found), evaluations


def jacobian(network, features, v) -> tuple[torch.Tensor, torch.Tensor]:
    """(r (n,), J (n, m)) at one image v (1, 3, H, W), a backward pass a row."""
    v = v.clone(memory_format=torch.channels_last).requires_grad_(True)
    r = response(network, v, features)[0]
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
