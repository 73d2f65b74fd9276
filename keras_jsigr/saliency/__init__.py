"""Saliency maps by gradients, Grad-CAM, occlusion, perturbation; caches, metrics."""

from keras_jsigr.core.arguments import BaselineName, ChangeName
from keras_jsigr.core.batching import BatchedExplainer
from keras_jsigr.saliency.base import (
    Explainer,
    SaliencyMethod,
    input_gradient,
    target_probability,
)
from keras_jsigr.saliency.cache import MapTable, PerturbationCache, content_keys
from keras_jsigr.saliency.explain import METHODS, explain, explainer
from keras_jsigr.saliency.grad_cam import GradCAM
from keras_jsigr.saliency.gradients import (
    Gradient,
    GradientTimesInput,
    IntegratedGradients,
    SmoothGrad,
    VarGrad,
    gradient_explainer,
    gradient_map,
)
from keras_jsigr.saliency.masks import (
    Layout,
    MaskBank,
    expand_map,
    interpolate,
    make_mask_bank,
    resolve_layout,
)
from keras_jsigr.saliency.masks import compute_baseline as baseline
from keras_jsigr.saliency.occlusion import RISE, Occlusion
from keras_jsigr.saliency.perturbation import (
    SARFA,
    Perturbation,
    bounded_score,
    change_score,
    expected_map,
    normalize_coefficients,
    perturbation_coefficients,
    perturbation_explainer,
    perturbation_map,
    probability_drop,
    sampled_map,
    sarfa,
    squared_logits,
)
from keras_jsigr.saliency.plot import plot_saliency

__all__ = [
    "METHODS",
    "RISE",
    "SARFA",
    "BaselineName",
    "BatchedExplainer",
    "ChangeName",
    "Explainer",
    "GradCAM",
    "Gradient",
    "GradientTimesInput",
    "IntegratedGradients",
    "Layout",
    "MapTable",
    "MaskBank",
    "Occlusion",
    "Perturbation",
    "PerturbationCache",
    "SaliencyMethod",
    "SmoothGrad",
    "VarGrad",
    "baseline",
    "bounded_score",
    "change_score",
    "content_keys",
    "expand_map",
    "expected_map",
    "explain",
    "explainer",
    "gradient_explainer",
    "gradient_map",
    "input_gradient",
    "interpolate",
    "make_mask_bank",
    "metrics",
    "normalize_coefficients",
    "perturbation_coefficients",
    "perturbation_explainer",
    "perturbation_map",
    "plot_saliency",
    "probability_drop",
    "resolve_layout",
    "sampled_map",
    "sarfa",
    "squared_logits",
    "target_probability",
]
