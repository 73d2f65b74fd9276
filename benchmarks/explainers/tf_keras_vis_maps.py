"""The methods of tf-keras-vis on a Keras 3 model with logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from judges.budget import in_batches

from explainers.settings import Make, Run, Settings, feature_layer

MISSING = {
    "gradient x input": "not in tf-keras-vis",
    "integrated gradients": "not in tf-keras-vis",
    "occlusion": "not in tf-keras-vis",
    "occlusion, stride 1": "not in tf-keras-vis",
    "RISE": "not in tf-keras-vis",
}


def _logits_of(y: np.ndarray) -> Callable[[Any], Any]:
    # Its own `CategoricalScore` takes the logits out one by one, which is slow.
    return lambda logits: tf.gather(logits, y, batch_dims=1)


def gradient(model: Any, settings: Settings) -> Run:
    """Prepare `Saliency`, absolute."""
    from tf_keras_vis.saliency import Saliency

    saliency = Saliency(model)

    def run(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return saliency(_logits_of(y), x, normalize_map=False)

    return in_batches(run, settings.batch_size)


def smoothgrad(model: Any, settings: Settings) -> Run:
    """Prepare `Saliency` of noisy copies, signed; noise by each image's range."""
    from tf_keras_vis.saliency import Saliency

    saliency = Saliency(model)

    def run(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return saliency(
            _logits_of(y),
            x,
            smooth_samples=settings.samples,
            smooth_noise=settings.noise,
            gradient_modifier=None,
            normalize_map=False,
        )

    return in_batches(run, settings.batch_size)


def grad_cam(model: Any, settings: Settings) -> Run:
    """Prepare `Gradcam`, resized linearly from corner to corner."""
    from tf_keras_vis.gradcam import Gradcam

    gradcam, layer = Gradcam(model), feature_layer(model)

    def run(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return gradcam(_logits_of(y), x, penultimate_layer=layer, normalize_cam=False)

    return in_batches(run, settings.batch_size)


METHODS: dict[str, Make] = {
    "gradient": gradient,
    "SmoothGrad": smoothgrad,
    "Grad-CAM": grad_cam,
}
