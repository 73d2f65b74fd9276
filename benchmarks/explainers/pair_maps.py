"""The methods of PAIR's saliency on a Keras 3 model with logits.

It explains image by image through a function that calls the model and that its user
writes. Ours is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from explainers.settings import Make, Run, Settings, feature_layer, one_by_one

MISSING = {
    "gradient x input": "not in PAIR saliency",
    "occlusion": "PAIR saliency knows no stride but 1",
    "RISE": "not in PAIR saliency",
}
Call = Callable[..., dict[str, np.ndarray]]


def _calls(model: Any) -> Call:
    """Return what PAIR calls for logits, and for their gradients at the input."""
    from saliency.core import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES

    signature = [tf.TensorSpec(model.input_shape), tf.TensorSpec((), tf.int32)]

    @tf.function(input_signature=signature, autograph=False)
    def logits(x: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        return model(x, training=False)[:, label]

    @tf.function(input_signature=signature, autograph=False)
    def gradients(x: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            chosen = logits(x, label)
        return tape.gradient(chosen, x)

    compiled = {OUTPUT_LAYER_VALUES: logits, INPUT_OUTPUT_GRADIENTS: gradients}

    def call(
        x: np.ndarray, call_model_args: int, expected_keys: list[str]
    ) -> dict[str, np.ndarray]:
        x, label = tf.constant(x, tf.float32), tf.constant(call_model_args)
        return {key: compiled[key](x, label).numpy() for key in expected_keys}

    return call


def _feature_calls(model: Any) -> Call:
    """Return what PAIR calls for feature maps and the gradients at them."""
    from saliency.core import CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS

    layer = model.get_layer(feature_layer(model))
    both = keras.Model(model.inputs, [layer.output, model.outputs[0]])
    signature = [tf.TensorSpec(model.input_shape), tf.TensorSpec((), tf.int32)]

    @tf.function(input_signature=signature, autograph=False)
    def features_and_gradients(x: tf.Tensor, label: tf.Tensor) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            features, logits = both(x, training=False)
            chosen = logits[:, label]
        return features, tape.gradient(chosen, features)

    def call(
        x: np.ndarray, call_model_args: int, expected_keys: list[str]
    ) -> dict[str, np.ndarray]:
        del expected_keys  # always both
        x, label = tf.constant(x, tf.float32), tf.constant(call_model_args)
        features, gradients = features_and_gradients(x, label)
        return {
            CONVOLUTION_LAYER_VALUES: features.numpy(),
            CONVOLUTION_OUTPUT_GRADIENTS: gradients.numpy(),
        }

    return call


def gradient(model: Any, settings: Settings) -> Run:
    """Prepare `GradientSaliency`, absolute."""
    import saliency.core as pair

    method, call = pair.GradientSaliency(), _calls(model)
    return one_by_one(lambda image, label: np.abs(method.GetMask(image, call, label)))


def smoothgrad(model: Any, settings: Settings) -> Run:
    """Prepare `GetSmoothedMask` of the gradient, signed."""
    import saliency.core as pair

    method, call = pair.GradientSaliency(), _calls(model)

    def run(image: np.ndarray, label: int) -> np.ndarray:
        return method.GetSmoothedMask(
            image,
            call,
            label,
            stdev_spread=settings.noise / np.ptp(image),
            nsamples=settings.samples,
            magnitude=False,
        )

    return one_by_one(run)


def integrated_gradients(model: Any, settings: Settings) -> Run:
    """Prepare `IntegratedGradients`: the mean over points, both ends among them."""
    import saliency.core as pair

    method, call = pair.IntegratedGradients(), _calls(model)

    def run(image: np.ndarray, label: int) -> np.ndarray:
        return method.GetMask(image, call, label, x_steps=settings.steps, batch_size=settings.steps)

    return one_by_one(run)


def grad_cam(model: Any, settings: Settings) -> Run:
    """Prepare `GradCam`, resized linearly, largest value one."""
    import saliency.core as pair

    method, call = pair.GradCam(), _feature_calls(model)
    return one_by_one(lambda image, label: method.GetMask(image, call, label, three_dims=False))


def occlusion(model: Any, settings: Settings) -> Run:
    """Prepare `Occlusion`, stride 1."""
    import saliency.core as pair

    method, call = pair.Occlusion(), _calls(model)
    return one_by_one(lambda image, label: method.GetMask(image, call, label, size=settings.patch))


METHODS: dict[str, Make] = {
    "gradient": gradient,
    "SmoothGrad": smoothgrad,
    "integrated gradients": integrated_gradients,
    "Grad-CAM": grad_cam,
    "occlusion, stride 1": occlusion,
}
