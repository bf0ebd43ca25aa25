"""The critical space of a setting by Algorithm 1, and a description of its complement U."""

import jax.numpy as jnp
import numpy as np

import ifv_jax as ifv
from benchmarks.estimators import Evidence, solve
from benchmarks.setting import Setting
from benchmarks.stages import Found

SAMPLES = slice(0, 32)
"""The first ones are what a space is found and chosen by."""


def find(setting: Setting, found: Found, evidence: Evidence) -> tuple[ifv.Choice, dict]:
    """The space chosen by the known targets, and notes on all that were candidates."""
    gram, response = (np.asarray(a[SAMPLES]) for a in (evidence.gram, evidence.response))
    candidates = ifv.candidate_spaces(ifv.spectra(gram), response=response, tau_max=setting.tau_max)
    choice = ifv.choose_space(
        candidates,
        lambda space: solve(setting, evidence, space, SAMPLES).objective,
        jnp.asarray(found.targets[SAMPLES]),
    )
    n = found.targets.shape[1]
    spaces = {n: ifv.full_space(n)} | {c.space.basis.shape[1]: c.space for c in candidates}
    rows = [
        {k: (None if v != v else v) for k, v in row._asdict().items()}
        | {"complement": describe(setting, spaces[row.dimension])}
        for row in choice.table
    ]
    notes: dict = {"choice": choice.status.name.lower(), "spaces": rows}
    if choice.space.complement.shape[1]:
        outside = np.asarray(ifv.fraction_outside(choice.space, found.targets))
        notes["mean_target_outside"] = round(float(np.mean(outside)), 4)
    return choice, notes


def describe(setting: Setting, space: ifv.CriticalSpace) -> dict:
    """Compares U with the directions expected for logits; describes it by its axes elsewhere."""
    count = space.complement.shape[1]
    if not count:
        return {}
    if setting.layer == "logits":
        return angles(space, setting.never_seen if count > 1 else None)
    features = setting.features or range(space.complement.shape[0])
    return {
        "largest_axis_of_each_vector": [
            {"feature": int(features[np.abs(u).argmax()]), "coefficient": round(float(c), 4)}
            for u in space.complement.T
            for c in [u[np.abs(u).argmax()]]
        ],
        "offset": [round(float(o), 4) for o in space.offset],
    }


def angles(space: ifv.CriticalSpace, never_seen: int | None) -> dict:
    """How the complement U lies to ones / sqrt(n) and the axis of the class that was never seen.

    The angle of a vector to a subspace is that to its projection; in degrees.
    """
    n = space.basis.shape[0]
    ones = np.ones(n) / np.sqrt(n)
    plane = ones[:, None]
    if never_seen is not None:
        plane = np.linalg.qr(np.stack([ones, np.eye(n)[never_seen]], axis=1))[0]
    inside = np.linalg.svd(plane.T @ space.complement, compute_uv=False)
    return {
        "largest_angle_to_reference_deg": _degrees(inside.min()),
        "angle_of_ones_to_U_deg": _degrees(np.linalg.norm(space.complement.T @ ones)),
        "offset": [round(float(o), 4) for o in space.offset],
    }


def _degrees(cosine) -> float:
    return round(float(np.degrees(np.arccos(min(1, cosine)))), 3)
