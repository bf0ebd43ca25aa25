"""`records.npz`: the arrays behind a summary, small, from which pictures are drawn.

Every picture is drawn from records, at once or later by `--draw`, so that both are the same.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import ifv_jax as ifv
from benchmarks.report import Estimate, angles, status
from benchmarks.setting import Setting, slug
from benchmarks.stages import DIRECTIONS, Found

FILE = "records.npz"
MOST = 16  # images kept of a setting, the first ones
SIDE = 160  # their largest height and width in pixels; larger ones are kept smaller


class Recovered(NamedTuple):
    """The result of one estimator. The summary has a case for each."""

    estimator: str
    predicted: np.ndarray  # (samples, n)
    status: np.ndarray  # (samples,) int8, see ifv.Status
    residual: np.ndarray  # (samples,)
    gap: np.ndarray  # (samples,)
    angle_predicted: np.ndarray  # (samples,) degrees to the target on the space, invalid ones 90
    angle_response: np.ndarray  # likewise
    angle_random: np.ndarray  # likewise
    basis: np.ndarray  # (n, d) of the space that was searched
    complement: np.ndarray  # (n, n - d)
    ssim_predicted: np.ndarray  # (re-optimized,), empty if none were
    ssim_target: np.ndarray
    ssim_response: np.ndarray
    ssim_random: np.ndarray

    def project(self, rows: np.ndarray) -> np.ndarray:
        """Unit vectors (samples, n) as they are on the space."""
        unknown = np.full(self.complement.shape[1], np.nan)
        space = ifv.CriticalSpace(self.basis, self.complement, float("nan"), unknown)
        return np.asarray(ifv.project(space, rows))


class Record(NamedTuple):
    """The result of one setting."""

    name: str
    network: str
    features: np.ndarray  # (n,) int, indices of the layer's channels
    targets: np.ndarray  # (samples, n)
    response: np.ndarray  # (samples, n)
    significance: np.ndarray  # (samples,)
    status: np.ndarray  # (samples,) int8, of Feature Visualization alone
    images: np.ndarray  # (at most MOST, height, width, 3) uint8
    recovered: tuple[Recovered, ...]  # the best last

    @property
    def slug(self) -> str:
        """The name as one of a file."""
        return slug(self.name)

    @property
    def best(self) -> Recovered:
        """The result of the best estimator."""
        return self.recovered[-1]


def record(setting: Setting, found: Found, estimates: Sequence[Estimate]) -> Record:
    """Reduces the result of a setting to what pictures need."""
    n = found.targets.shape[1]
    return Record(
        name=setting.name,
        network=setting.network_name,
        features=np.asarray(setting.features or range(n)),
        targets=np.asarray(found.targets),
        response=np.asarray(found.response),
        significance=np.asarray(found.significance),
        status=np.asarray(found.status),
        images=thumbnails(np.asarray(found.images[:MOST])),
        recovered=tuple(_recovered(setting, found, estimate) for estimate in estimates),
    )


def _recovered(setting: Setting, found: Found, estimate: Estimate) -> Recovered:
    predictions, verified = estimate.predictions, estimate.verified
    space = estimate.space or ifv.full_space(found.targets.shape[1])
    ssim = verified.ssim if verified else {}
    return Recovered(
        estimator=estimate.estimator,
        predicted=np.asarray(predictions.objective),
        status=status(found, predictions),
        residual=np.asarray(predictions.residual),
        gap=np.asarray(predictions.gap),
        basis=space.basis,
        complement=space.complement,
        **{f"angle_{who}": each for who, each in angles(setting, found, estimate).items()},
        **{f"ssim_{who}": np.asarray(ssim.get(who, ())) for who in DIRECTIONS},
    )


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Images (count, H, W, C) as small ones to be seen, uint8 with three channels.

    Geometry images (mask, normal, depth) are shown by their normals, white where nothing is hit.
    """
    if images.shape[-1] == 5:
        mask = images[..., :1]
        images = mask * (images[..., 1:4] + 1) / 2 + (1 - mask)
    pixels = np.round(255 * np.clip(images, 0, 1)).astype(np.uint8)
    height, width = pixels.shape[1:3]
    scale = SIDE / max(height, width)
    if scale >= 1:
        return pixels
    size = (round(scale * width), round(scale * height))
    small = [Image.fromarray(one).resize(size, Image.Resampling.BOX) for one in pixels]
    return np.stack([np.asarray(one) for one in small])


def save(folder: Path, records: Sequence[Record]) -> Path:
    """Writes `folder`/records.npz: fields of a record as "0/targets", "0/recovered/1/status"."""
    arrays: dict[str, Any] = {}
    for i, one in enumerate(records):
        fields = one._asdict()
        for j, each in enumerate(fields.pop("recovered")):
            arrays |= {f"{i}/recovered/{j}/{name}": a for name, a in each._asdict().items()}
        arrays |= {f"{i}/{name}": a for name, a in fields.items()}
    path = folder / FILE
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path


def load(folder: Path) -> list[Record]:
    """Reads the records that `save` wrote."""
    with np.load(folder / FILE, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}

    def read(kind, prefix: str, **more):
        return kind(
            **more,
            **{
                name: a if (a := arrays[f"{prefix}/{name}"]).ndim else a.item()
                for name in kind._fields
                if name not in more
            },
        )

    records = []
    while f"{len(records)}/name" in arrays:
        here, recovered = f"{len(records)}", []
        while f"{here}/recovered/{len(recovered)}/estimator" in arrays:
            recovered.append(read(Recovered, f"{here}/recovered/{len(recovered)}"))
        records.append(read(Record, here, recovered=tuple(recovered)))
    return records
