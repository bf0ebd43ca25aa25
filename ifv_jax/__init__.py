"""Feature Visualization and its closed-form inversion, Grad-IFV, in JAX."""

from ifv_jax.aggregation import identity, max_mean, mean, pick
from ifv_jax.checks import InputError
from ifv_jax.critical_candidates import Candidate, candidate_spaces, enumerate_spaces
from ifv_jax.critical_choice import Choice, ChoiceStatus, choose_space
from ifv_jax.critical_kernel import Spectra, approximate_kernel, spectra
from ifv_jax.critical_space import (
    CriticalSpace,
    critical_space_from_complement,
    fraction_outside,
    full_space,
    load_space,
    project,
    save_space,
)
from ifv_jax.engine.runs import Run
from ifv_jax.geometry_image import geometry_image
from ifv_jax.inversion import Predictions, invert, linearize_all, solve
from ifv_jax.jacobian import Jacobian, Linearization, jacobian, linearize
from ifv_jax.kinks import Perturbations
from ifv_jax.metrics import angular_distance, coefficients, ssim
from ifv_jax.objective import Objective, Response, make_objective, make_response
from ifv_jax.parametrization import Parametrization, fourier, sigmoid_pixels
from ifv_jax.significance import significance, weight_matrix
from ifv_jax.status import Status, status_counts, usable
from ifv_jax.targets import (
    canonical_targets,
    hoyer_sparseness,
    random_targets,
    sample_sparse,
    sample_targets,
)
from ifv_jax.types import SYMBOLS
from ifv_jax.verification import Reoptimization, Verdict, reoptimize, verdict
from ifv_jax.visualization import FVConfig, Realizations, visualize

__all__ = [
    "SYMBOLS",
    "Candidate",
    "Choice",
    "ChoiceStatus",
    "CriticalSpace",
    "FVConfig",
    "InputError",
    "Jacobian",
    "Linearization",
    "Objective",
    "Parametrization",
    "Perturbations",
    "Predictions",
    "Realizations",
    "Reoptimization",
    "Response",
    "Run",
    "Spectra",
    "Status",
    "Verdict",
    "angular_distance",
    "approximate_kernel",
    "candidate_spaces",
    "canonical_targets",
    "choose_space",
    "coefficients",
    "critical_space_from_complement",
    "enumerate_spaces",
    "fourier",
    "fraction_outside",
    "full_space",
    "geometry_image",
    "hoyer_sparseness",
    "identity",
    "invert",
    "jacobian",
    "linearize",
    "linearize_all",
    "load_space",
    "make_objective",
    "make_response",
    "max_mean",
    "mean",
    "pick",
    "project",
    "random_targets",
    "reoptimize",
    "sample_sparse",
    "sample_targets",
    "save_space",
    "sigmoid_pixels",
    "significance",
    "solve",
    "spectra",
    "ssim",
    "status_counts",
    "usable",
    "verdict",
    "visualize",
    "weight_matrix",
]

__version__ = "0.1.0"
