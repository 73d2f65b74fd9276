"""Robust, explainable Keras classifiers in one call: J-SIGR training for Keras 3."""

import importlib.util
import warnings

if importlib.util.find_spec("tensorflow") is None:
    raise ImportError(
        "keras_jsigr needs TensorFlow, which is not installed. Run `pip install tensorflow-cpu` "
        "(CPUs of type x86-64) or `pip install tensorflow` (GPUs and all others)."
    )

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"keras_jsigr runs on TensorFlow: got the Keras backend '{keras.backend.backend()}'. Set "
        "KERAS_BACKEND=tensorflow before Keras is imported."
    )

from keras_jsigr import (
    attacks,
    callbacks,
    datasets,
    evaluation,
    penalties,
    saliency,
    serving,
)
from keras_jsigr.activations import Swish, with_smooth_activations
from keras_jsigr.config import JSIGRConfig, LiveMaps
from keras_jsigr.config import preset as preset
from keras_jsigr.core.keras_compat import untested_versions
from keras_jsigr.evaluation import (
    Report,
    compare,
    evaluate_robustness,
    evaluate_saliency,
    plot_history,
)
from keras_jsigr.harden import harden, unwrap
from keras_jsigr.model import JSIGRModel
from keras_jsigr.saliency import (
    PerturbationCache,
    explain,
    explainer,
    gradient_map,
    perturbation_map,
    plot_saliency,
)

__version__ = "0.1.0"

__all__ = [
    "JSIGRConfig",
    "JSIGRModel",
    "LiveMaps",
    "PerturbationCache",
    "Report",
    "Swish",
    "attacks",
    "callbacks",
    "compare",
    "datasets",
    "evaluate_robustness",
    "evaluate_saliency",
    "evaluation",
    "explain",
    "explainer",
    "gradient_map",
    "harden",
    "penalties",
    "perturbation_map",
    "plot_history",
    "plot_saliency",
    "saliency",
    "serving",
    "unwrap",
    "with_smooth_activations",
]


if _UNTESTED := untested_versions():
    warnings.warn(_UNTESTED, RuntimeWarning, stacklevel=2)


def __getattr__(name: str) -> object:
    if name == "evaluate":
        warnings.warn(
            "`keras_jsigr.evaluate` is `evaluate_robustness` now; the old name will go "
            "with the next release.",
            DeprecationWarning,
            stacklevel=2,
        )
        return evaluate_robustness
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
