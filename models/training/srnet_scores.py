"""How good an SRNet is on views of unseen volumes: scores beside bilinear's, and a picture."""

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
    """Of each view: PSNR in dB of normals and depth inside the surface, and 1 - IoU of the mask.

    `output` (B, H, W, >= 5) is finished first; peaks are 2 for normals and 1 for depth. Each is an
    array (B,).
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
    """Means of the scores over views: the network's, bilinear upsampling's, and its gain.

    The gain is the difference in dB, and for the mask's error the ratio of the means;
    `standard_error` is that of the gains in dB, over views.
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
    """What the network is to beat: (B, h, w, 5) -> (B, 4 h, 4 w, 6), no ambient occlusion."""
    count, height, width, channels = low.shape
    shape = (count, srnet.SCALE * height, srnet.SCALE * width, channels)
    high = np.array(jax.image.resize(jnp.asarray(low), shape, "bilinear"))
    high[..., 0] = 2 * high[..., 0] - 1
    return np.concatenate([high, np.ones_like(high[..., :1])], -1)


def upscale(params: Any, low: np.ndarray) -> np.ndarray:
    """The network's output, one view at a time."""
    apply = jax.jit(srnet.make_apply(low.shape[1]))
    variables = {"params": params}
    return np.concatenate([np.asarray(apply(variables, view[None])) for view in low])


def picture(path: Path, params: Any, tested: list[Pairs]) -> None:
    """Rows of low resolution, bilinear, ours, truth, shaded; one for each test volume."""
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
        for axis, image, title in zip(row, [coarse, made[0][0], made[1][0], high], titles,
                                      strict=True):  # fmt: skip
            axis.imshow(isosurface.shade(image), interpolation="nearest")
            axis.set_title(title, fontsize=9)
            axis.set_axis_off()
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=120)
    pyplot.close(figure)
    os.replace(temporary, path)
