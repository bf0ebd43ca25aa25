"""Pictures of an experiment: what was found, and how far off the recovered objectives are."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

COLOURS = {"target": "#333333", "predicted": "#1f77b4", "response": "#ff7f0e", "random": "#bbbbbb"}


def grid(path: Path, title: str, images, bars: dict[str, np.ndarray], angles, labels) -> None:
    """Each image with its target, prediction and response (samples, features) as bars below.

    `angles`: {"predicted": (samples,), "response": (samples,)} in degrees, written above.
    """
    count, columns = len(images), 6
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        2 * rows, columns, squeeze=False, figsize=(2.3 * columns, 3.9 * rows + 0.9),
        gridspec_kw={"height_ratios": [1.5, 1] * rows}, layout="constrained",
    )  # fmt: skip
    for axis in axes.ravel():
        axis.set_axis_off()
    for i in range(count):
        row, column = divmod(i, columns)
        top, bottom = axes[2 * row, column], axes[2 * row + 1, column]
        top.imshow(np.clip(images[i], 0, 1), interpolation="nearest")
        top.set_title(
            f"prediction {angles['predicted'][i]:.1f}° off\n"
            f"response {angles['response'][i]:.1f}° off",
            fontsize=8,
        )
        bottom.set_axis_on()
        places = np.arange(bars["target"].shape[1])
        for shift, who in zip((-0.27, 0, 0.27), ("target", "predicted", "response"), strict=True):
            bottom.bar(places + shift, bars[who][i], width=0.27, color=COLOURS[who], label=who)
        bottom.axhline(0, color="black", linewidth=0.5)
        bottom.set_ylim(-1, 1)
        bottom.set_xticks(places, labels, fontsize=5, rotation=90)
        bottom.set_yticks([])
        for side in ("top", "right", "left"):
            bottom.spines[side].set_visible(False)
    handles, names = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def gallery(path: Path, title: str, images, captions, columns: int) -> None:
    """Images (count, H, W, 3), each with its caption above."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, squeeze=False, figsize=(2.2 * columns, 2.6 * rows + 0.4),
        layout="constrained",
    )  # fmt: skip
    for axis in axes.ravel():
        axis.set_axis_off()
    for axis, image, caption in zip(axes.ravel(), images, captions, strict=False):
        axis.imshow(np.clip(image, 0, 1), interpolation="nearest")
        axis.set_title(caption, fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def angle_plot(path: Path, cases: dict[str, dict[str, np.ndarray]]) -> None:
    """Angular distance to the target, sample by sample, for each case; logarithmic."""
    names = ("predicted", "response", "random")
    figure, axis = plt.subplots(figsize=(2 + 2.2 * len(cases), 4.2), layout="constrained")
    rng = np.random.default_rng(0)
    for place, angles in enumerate(cases.values()):
        for shift, who in zip((-0.25, 0, 0.25), names, strict=True):
            values = np.maximum(angles[who], 1e-2)
            jitter = rng.uniform(-0.07, 0.07, len(values))
            axis.scatter(
                place + shift + jitter, values, s=12, alpha=0.6, color=COLOURS[who], linewidths=0,
                label=who if place == 0 else None,
            )  # fmt: skip
            median = np.median(values)
            axis.plot([place + shift - 0.11, place + shift + 0.11], [median] * 2, color="black")
            axis.annotate(
                f"{median:.2g}°", (place + shift, median), xytext=(0, 4), fontsize=8,
                textcoords="offset points", ha="center",
            )  # fmt: skip
    axis.set_yscale("log")
    axis.set_ylabel("angle to the target in degrees")
    axis.set_xticks(range(len(cases)), list(cases), fontsize=8)
    figure.legend(frameon=False, loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=130)
    plt.close(figure)
