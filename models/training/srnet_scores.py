"""Scores of an SRNet on views of unseen volumes, beside those of bilinear upsampling; a picture."""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models import srnet
from models.training import isosurface
from models.training.srnet_data import Pairs


def scores(output: np.ndarray, high: np.ndarray) -> dict[str, np.ndarray]:
    """Scores outputs against the truth.

    Args:
      output: outputs of a network, (B, H, W, >= 5). `srnet.finish` is applied first.
      high: the truth, (B, H, W, 6).

    Returns:
      For each view, arrays (B,): PSNR in dB of normals (peak 2) and depth (peak 1) inside the
      surface, and 1 - IoU of the mask.
    """
    output = np.asarray(srnet.finish(jnp.asarray(output)))
    inside = high[..., 0] > 0.5
    found = output[..., 0] > 0
    space = (1, 2)

    def psnr(channels: slice, peak: float) -> np.ndarray:
        squares = np.square(output[..., channels] - high[..., channels], dtype=float).mean(-1)
        return 10 * np.log10(peak**2 * inside.sum(space) / (squares * inside).sum(space))

    return {
        "normal_psnr_db": psnr(slice(1, 4), 2),
        "depth_psnr_db": psnr(slice(4, 5), 1),
        "mask_error": 1 - (inside & found).sum(space) / (inside | found).sum(space),
    }


def compare(params: Any, pairs: Pairs) -> dict[str, dict[str, float]]:
    """Compares a network with bilinear upsampling.

    Args:
      params: parameters of the network.
      pairs: the views.

    Returns:
      Means of the scores over views: `network`, `bilinear`, and their `gain`, which is the
      difference in dB and, for the mask's error, the ratio of the means. `standard_error` is that
      of the gains in dB over views.
    """
    network, plain = (
        scores(x, pairs.high) for x in (upscale(params, pairs.low), bilinear(pairs.low))
    )
    gains = {name: network[name] - plain[name] for name in network if name.endswith("_db")}
    mask = network["mask_error"].mean() / plain["mask_error"].mean()
    mean = lambda found: {name: float(values.mean()) for name, values in found.items()}  # noqa: E731
    return {
        "network": mean(network),
        "bilinear": mean(plain),
        "gain": {**mean(gains), "mask_error": float(mask)},
        "standard_error": {
            name: float(values.std(ddof=1) / len(values) ** 0.5) for name, values in gains.items()
        },
    }


def bilinear(low: np.ndarray) -> np.ndarray:
    """Upsamples bilinearly, which the network has to beat.

    Args:
      low: geometry images, (B, h, w, 5).

    Returns:
      (B, 4 h, 4 w, 6), with an ambient occlusion of one.
    """
    count, height, width, channels = low.shape
    shape = (count, srnet.SCALE * height, srnet.SCALE * width, channels)
    high = np.array(jax.image.resize(jnp.asarray(low), shape, "bilinear"))
    high[..., 0] = 2 * high[..., 0] - 1
    return np.concatenate([high, np.ones_like(high[..., :1])], -1)


def upscale(params: Any, low: np.ndarray) -> np.ndarray:
    """Computes the network's output, one view at a time.

    Args:
      params: parameters of the network.
      low: geometry images, (B, h, w, 5).

    Returns:
      (B, 4 h, 4 w, 6).
    """
    apply = jax.jit(srnet.make_apply(low.shape[1]))
    variables = {"params": params}
    return np.concatenate([np.asarray(apply(variables, view[None])) for view in low])


def picture(path: Path, params: Any, tested: list[Pairs]) -> None:
    """Draws low resolution, bilinear upsampling, the network and the truth for each test volume.

    Args:
      path: the file of the picture.
      params: parameters of the network.
      tested: views of each test volume.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    titles = ("low resolution", "bilinear", "SRNet", "truth")
    figure, axes = pyplot.subplots(
        len(tested), 4, figsize=(10, 2.6 * len(tested)), squeeze=False, layout="constrained"
    )
    for row, pairs in zip(axes, tested, strict=True):
        low, high = pairs.low[:1], pairs.high[0]
        coarse = np.concatenate([low[0], np.ones_like(low[0, ..., :1])], -1)
        made = [
            np.array(srnet.finish(jnp.asarray(x))) for x in (bilinear(low), upscale(params, low))
        ]
        for image in made:
            image[..., 0] = image[..., 0] > 0
        images = [coarse, made[0][0], made[1][0], high]
        for axis, image, title in zip(row, images, titles, strict=True):
            axis.imshow(isosurface.shade(image), interpolation="nearest")
            axis.set_title(title, fontsize=9)
            axis.set_axis_off()
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=120)
    pyplot.close(figure)
    os.replace(temporary, path)
