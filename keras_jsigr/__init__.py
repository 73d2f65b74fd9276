"""Robust, explainable Keras classifiers in one call: J-SIGR training for Keras 3."""

import keras

from keras_jsigr.activations import Swish, with_smooth_activations
from keras_jsigr.config import preset
from keras_jsigr.evaluation.evaluate import evaluate
from keras_jsigr.evaluation.report import Report, compare
from keras_jsigr.evaluation.saliency import evaluate_saliency
from keras_jsigr.harden import harden, unwrap
from keras_jsigr.model import JSIGRModel
from keras_jsigr.penalties.settings import PenaltySettings
from keras_jsigr.saliency.cache import PerturbationCache
from keras_jsigr.saliency.explain import explain, explainer
from keras_jsigr.saliency.gradients import gradient_map
from keras_jsigr.saliency.perturbation import perturbation_map

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"keras_jsigr runs on TensorFlow: got the Keras backend "
        f"'{keras.backend.backend()}'. Set KERAS_BACKEND=tensorflow before Keras is "
        "imported."
    )


__version__ = "0.1.0"


__all__ = [
    "JSIGRModel",
    "PenaltySettings",
    "PerturbationCache",
    "Report",
    "Swish",
    "attacks",
    "callbacks",
    "compare",
    "datasets",
    "evaluate",
    "evaluate_saliency",
    "evaluation",
    "explain",
    "explainer",
    "gradient_map",
    "harden",
    "penalties",
    "perturbation_map",
    "preset",
    "saliency",
    "serving",
    "unwrap",
    "with_smooth_activations",
]
