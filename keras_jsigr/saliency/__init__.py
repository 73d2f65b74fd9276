"""Saliency maps by gradients, Grad-CAM, occlusion, perturbation; caches, metrics."""

import importlib
import warnings
from typing import Any

from keras_jsigr.saliency import metrics
from keras_jsigr.saliency.base import Explainer, SaliencyMethod
from keras_jsigr.saliency.cache import PerturbationCache
from keras_jsigr.saliency.explain import METHODS, explain, explainer
from keras_jsigr.saliency.grad_cam import GradCAM
from keras_jsigr.saliency.gradients import (
    Gradient,
    GradientTimesInput,
    IntegratedGradients,
    SmoothGrad,
    VarGrad,
    gradient_map,
)
from keras_jsigr.saliency.occlusion import RISE, Occlusion
from keras_jsigr.saliency.perturbation import SARFA, Perturbation, perturbation_map
from keras_jsigr.saliency.plot import plot_saliency

__all__ = [
    "Explainer",
    "GradCAM",
    "Gradient",
    "GradientTimesInput",
    "IntegratedGradients",
    "METHODS",
    "Occlusion",
    "Perturbation",
    "PerturbationCache",
    "RISE",
    "SARFA",
    "SaliencyMethod",
    "SmoothGrad",
    "VarGrad",
    "explain",
    "explainer",
    "gradient_map",
    "metrics",
    "perturbation_map",
    "plot_saliency",
]

# Public in version 0.1.0, building blocks now: where they are.
_MOVED = {
    "core.arguments": "BaselineName ChangeName",
    "core.batching": "BatchedExplainer",
    "saliency.base": "input_gradient target_probability",
    "saliency.cache": "MapTable content_keys",
    "saliency.gradients": "gradient_explainer",
    "saliency.masks": "Layout MaskBank baseline expand_map interpolate make_mask_bank "
    "resolve_layout",
    "saliency.perturbation": "bounded_score change_score expected_map "
    "normalize_coefficients perturbation_coefficients perturbation_explainer "
    "probability_drop sampled_map sarfa squared_logits",
}


def __getattr__(name: str) -> Any:
    """Return a building block that was public, with a warning, for one release."""
    for module, names in _MOVED.items():
        if name in names.split():
            warnings.warn(
                f"`saliency.{name}` is a building block and no public name any more.",
                DeprecationWarning,
                stacklevel=2,
            )
            found = importlib.import_module(f"keras_jsigr.{module}")
            return getattr(found, {"baseline": "compute_baseline"}.get(name, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
