"""Saliency: what the gradient says matters, and what occlusion says matters."""

from keras_jsigr.core.choices import BaselineName, ChangeName
from keras_jsigr.saliency.baselines import baseline
from keras_jsigr.saliency.batched import BatchedExplainer
from keras_jsigr.saliency.bounded_score import bounded_score
from keras_jsigr.saliency.cache import PerturbationCache
from keras_jsigr.saliency.change_score import change_score
from keras_jsigr.saliency.content_keys import content_keys
from keras_jsigr.saliency.expected_map import expected_map
from keras_jsigr.saliency.gradient import input_gradient
from keras_jsigr.saliency.gradient_map import gradient_explainer, gradient_map
from keras_jsigr.saliency.interpolate import expand_map, interpolate
from keras_jsigr.saliency.layout import Layout, resolve_layout
from keras_jsigr.saliency.map_table import MapTable
from keras_jsigr.saliency.mask_bank import MaskBank, make_mask_bank
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
)
from keras_jsigr.saliency.sampled_map import sampled_map

__all__ = [
    "BaselineName",
    "BatchedExplainer",
    "ChangeName",
    "Layout",
    "MapTable",
    "MaskBank",
    "PerturbationCache",
    "baseline",
    "bounded_score",
    "change_score",
    "content_keys",
    "expand_map",
    "expected_map",
    "gradient_explainer",
    "gradient_map",
    "input_gradient",
    "interpolate",
    "make_mask_bank",
    "normalize_coefficients",
    "perturbation_coefficients",
    "perturbation_explainer",
    "perturbation_map",
    "probability_drop",
    "resolve_layout",
    "sampled_map",
    "sarfa",
    "squared_logits",
]
