"""Saliency: what the gradient says matters, and what occlusion says matters."""

from keras_jsigr.core.choices import BaselineName, ChangeName
from keras_jsigr.saliency import metrics
from keras_jsigr.saliency.baselines import baseline
from keras_jsigr.saliency.batched import BatchedExplainer
from keras_jsigr.saliency.bounded_score import bounded_score
from keras_jsigr.saliency.cache import PerturbationCache
from keras_jsigr.saliency.change_score import change_score
from keras_jsigr.saliency.content_keys import content_keys
from keras_jsigr.saliency.expected_map import expected_map
from keras_jsigr.saliency.explain import METHODS, explain, explainer
from keras_jsigr.saliency.gradient import input_gradient
from keras_jsigr.saliency.gradient_map import gradient_explainer, gradient_map
from keras_jsigr.saliency.interpolate import expand_map, interpolate
from keras_jsigr.saliency.layout import Layout, resolve_layout
from keras_jsigr.saliency.map_table import MapTable
from keras_jsigr.saliency.mask_bank import MaskBank, make_mask_bank
from keras_jsigr.saliency.methods.explainer import Explainer
from keras_jsigr.saliency.methods.grad_cam import GradCAM
from keras_jsigr.saliency.methods.gradient import Gradient
from keras_jsigr.saliency.methods.gradient_x_input import GradientTimesInput
from keras_jsigr.saliency.methods.integrated_gradients import IntegratedGradients
from keras_jsigr.saliency.methods.meaningful_perturbation import MeaningfulPerturbation
from keras_jsigr.saliency.methods.method import SaliencyMethod
from keras_jsigr.saliency.methods.occlusion import Occlusion
from keras_jsigr.saliency.methods.perturbation import Perturbation
from keras_jsigr.saliency.methods.rise import RISE
from keras_jsigr.saliency.methods.sarfa import SARFA
from keras_jsigr.saliency.methods.smoothgrad import SmoothGrad
from keras_jsigr.saliency.methods.vargrad import VarGrad
from keras_jsigr.saliency.peers.xplique import XpliqueMethod
from keras_jsigr.saliency.perturbation import (
    normalize_coefficients,
    perturbation_coefficients,
)
from keras_jsigr.saliency.perturbation_map import (
    perturbation_explainer,
    perturbation_map,
)
from keras_jsigr.saliency.perturbation_scores import (
    probability_drop,
    sarfa,
    squared_logits,
    target_probability,
)
from keras_jsigr.saliency.sampled_map import sampled_map

__all__ = [
    "BaselineName",
    "BatchedExplainer",
    "ChangeName",
    "Explainer",
    "GradCAM",
    "Gradient",
    "GradientTimesInput",
    "IntegratedGradients",
    "Layout",
    "METHODS",
    "MapTable",
    "MaskBank",
    "MeaningfulPerturbation",
    "Occlusion",
    "Perturbation",
    "PerturbationCache",
    "RISE",
    "SARFA",
    "SaliencyMethod",
    "SmoothGrad",
    "VarGrad",
    "XpliqueMethod",
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
    "probability_drop",
    "resolve_layout",
    "sampled_map",
    "sarfa",
    "squared_logits",
    "target_probability",
]
