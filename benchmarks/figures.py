"""Pictures of records: the images found, and how far off the recovered objectives are."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

import ifv_jax as ifv
from benchmarks.estimators import titled
from benchmarks.records import Record

COLOURS = {"target": "#333333", "predicted": "#1f77b4", "response": "#ff7f0e", "random": "#bbbbbb"}


def angle_plot(path: Path, records: Sequence[Record]) -> None:
    """Angular distance to the target, sample by sample, of each record; logarithmic."""
    records = [record for record in records if record.recovered]
    figure, axis = plt.subplots(figsize=(2 + 2.2 * len(records), 4.2), layout="constrained")
    rng = np.random.default_rng(0)
    for place, record in enumerate(records):
        for shift, who in zip((-0.25, 0, 0.25), ("predicted", "response", "random"), strict=True):
            values = np.maximum(getattr(record.best, f"angle_{who}"), 1e-2)
            places = place + shift + rng.uniform(-0.07, 0.07, len(values))
            label = who if place == 0 else None
            axis.scatter(
                places, values, s=12, alpha=0.6, color=COLOURS[who], linewidths=0, label=label
            )
            median = np.median(values)
            axis.plot([place + shift - 0.11, place + shift + 0.11], [median] * 2, color="black")
            above = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center"}
            axis.annotate(f"{median:.2g}°", (place + shift, median), fontsize=8, **above)
    axis.set_yscale("log")
    axis.set_ylabel("angle to the target in degrees")
    axis.set_xticks(range(len(records)), [record.name for record in records], fontsize=8)
    figure.legend(frameon=False, loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def grid(folder: Path, record: Record, most: int = 12, columns: int = 6) -> None:
    """Images with target, prediction and response as bars below; `folder`/SLUG.png.

    Objectives are shown on the space they are compared on.
    """
    best, images = record.best, record.images[:most]
    shown = {"target": record.targets, "predicted": best.predicted, "response": record.response}
    bars = {who: best.project(rows[:most]) for who, rows in shown.items()}
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        2 * rows,
        columns,
        squeeze=False,
        figsize=(2.3 * columns, 3.9 * rows + 0.9),
        gridspec_kw={"height_ratios": [1.5, 1] * rows},
        layout="constrained",
    )
    for axis in axes.ravel():
        axis.set_axis_off()
    for i, (image, caption) in enumerate(zip(images, off_by(record), strict=False)):
        row, column = divmod(i, columns)
        _image(axes[2 * row, column], image, caption)
        _bars(axes[2 * row + 1, column], {who: each[i] for who, each in bars.items()}, record)
    handles, names = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    name = titled(record.name, best.estimator)
    figure.suptitle(f"{record.network}, {name}: images found, and the objectives recovered")
    figure.savefig(folder / f"{record.slug}.png", dpi=110)
    plt.close(figure)


def gallery(
    path: Path, title: str, images: np.ndarray, captions: Sequence[str], columns: int
) -> None:
    """Images (count, H, W, 3), each with its caption above."""
    rows = -(-len(images) // columns)
    size = (2.2 * columns, 2.6 * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=size, layout="constrained")
    for axis in axes.ravel():
        axis.set_axis_off()
    for axis, image, caption in zip(axes.ravel(), images, captions, strict=False):
        _image(axis, image, caption)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def off_by(record: Record, *, trust: bool = False) -> list[str]:
    """Captions: how far off prediction and response are, and how far to trust the former."""
    best = record.best
    captions = [
        f"prediction {p:.1f}° off\nresponse {r:.1f}° off"
        for p, r in zip(best.angle_predicted, best.angle_response, strict=True)
    ]
    if not trust:
        return captions
    return [
        f"{caption}\nresidual {residual:.1e}, gap {gap:.2f}"
        for caption, residual, gap in zip(captions, best.residual, best.gap, strict=True)
    ]


def objectives(record: Record) -> list[str]:
    """Captions: the objective that each image maximizes, and a status if that failed."""
    captions = []
    for target, status in zip(record.targets, record.status, strict=True):
        if np.count_nonzero(target) == 1:
            caption = f"feature {record.features[target.argmax()]}"
        else:
            caption = f"sparseness {float(ifv.hoyer_sparseness(target)):.2f}"
        failed = "" if status == ifv.Status.OK else f", {ifv.Status(status).name.lower()}"
        captions.append(caption + failed)
    return captions


def _image(axis: Axes, image: np.ndarray, caption: str) -> None:
    axis.imshow(image, interpolation="nearest")
    axis.set_title(caption, fontsize=8)


def _bars(axis: Axes, heights: dict[str, np.ndarray], record: Record) -> None:
    axis.set_axis_on()
    places = np.arange(len(record.features))
    for shift, who in zip((-0.27, 0, 0.27), heights, strict=True):
        axis.bar(places + shift, heights[who], width=0.27, color=COLOURS[who], label=who)
    axis.axhline(0, color="black", linewidth=0.5)
    axis.set_ylim(-1, 1)
    axis.set_xticks(places, [str(i) for i in record.features], fontsize=5, rotation=90)
    axis.set_yticks([])
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
