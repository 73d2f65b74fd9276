"""Does TensorFlow differentiate this network twice, and rightly? Numbers decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.checks.double_precision import double_precision
from keras_jsigr.checks.one_input import of_one_input
from keras_jsigr.checks.second_order import Finding, second_order
from keras_jsigr.checks.smooth_stand_ins import smooth_stand_ins
from keras_jsigr.core.exact_moments import exact_moments
from keras_jsigr.core.inputs import unchanged_state
from keras_jsigr.core.keras_private import all_layers, leaf_layers

_SUSPECT = 0.1
# TensorFlow differentiates their interpolation as if the inverse movement undid it:
# even the first derivative for the pixels is off, by as much as the draw decides.
_MOVES_PIXELS = tuple(
    getattr(keras.layers, name)
    for name in (
        "RandomElasticTransform",
        "RandomPerspective",
        "RandomRotation",
        "RandomShear",
        "RandomTranslation",
        "RandomZoom",
    )
    if hasattr(keras.layers, name)  # Keras keeps adding to them
)


# Of two examples batch normalization of maps of one pixel leaves a sign, and no slope.
_FEW, _SEVERAL = 2, 16


def check_second_order(
    model: keras.Model,
    forward: Callable[[Any, bool], Any],
    batch: Callable[[int], Any],
    index: int,
) -> None:
    """Refuse a network whose second derivatives are missing or wrong.

    Args:
        model: The base model.
        forward: Function from inputs and a training flag to logits.
        batch: Function from a size to a probe batch in the model's input structure.
        index: Position of the input to differentiate for.

    Raises:
        ValueError: If the derivatives do not agree; names the layer where it can.
    """
    variables = list(model.trainable_variables)

    def tried(size: int) -> Finding:
        x = batch(size)
        network = of_one_input(lambda full: forward(full, True), x, index)
        return _try(model, network, keras.tree.flatten(x)[index], variables)

    if not variables:
        return
    moving = [each for each in leaf_layers(model) if isinstance(each, _MOVES_PIXELS)]
    if moving:
        raise ValueError(
            f"TensorFlow's derivative of {_named(moving)} for the pixels is wrong, by "
            "as much as the random draw decides. J-SIGR by double backpropagation "
            "would train on it. Augment in the data pipeline, or use "
            "estimator='finite_difference' with norm='squared', which needs none."
        )
    finding = tried(_FEW)
    if finding.passed:
        return
    if finding.error is not None:
        finding = tried(_SEVERAL)
        if finding.passed:
            return
    culprits = [layer for layer in leaf_layers(model) if not layer_passes(layer)]
    if finding.error is not None and finding.error <= _SUSPECT and not culprits:
        return  # rounding in a deep network, not a wrong derivative: those are larger
    what = (
        f"raises: {finding.reason}"
        if finding.error is None
        else f"is wrong by {finding.error:.0%}, silently"
    )
    where = f" of {_named(culprits)}" if culprits else f" of `{model.name}`"
    way = (
        "or exchange the layer"
        if culprits
        else "or, as no layer fails alone, probe=False if you know better"
    )
    raise ValueError(
        f"TensorFlow's second derivative{where} {what}. J-SIGR by double "
        "backpropagation would train on it. Use estimator='finite_difference' with "
        f"norm='squared', which needs none, {way}."
    )


def _named(layers: list[keras.Layer]) -> str:
    return ", ".join(f"`{layer.name}` ({type(layer).__name__})" for layer in layers)


def _try(
    model: keras.Model, network: Callable[[Any], Any], x: Any, variables: list[Any]
) -> Finding:
    def replayed(value: Any) -> Any:
        with unchanged_state(model):  # same dropout mask, same statistics every time
            return network(value)

    wrappers = [
        layer
        for layer in all_layers(model)
        if isinstance(layer, keras.layers.SpectralNormalization)
    ]
    with smooth_stand_ins([*leaf_layers(model), *wrappers]):
        return _in_double_or_single(model, replayed, x, variables)


def _in_double_or_single(
    model: keras.Layer, network: Callable[[Any], Any], x: Any, variables: list[Any]
) -> Finding:
    with exact_moments():
        try:
            with double_precision(model):
                finding = second_order(network, tf.cast(x, tf.float64), variables)
            if finding.error is not None:
                return finding
        except (TypeError, ValueError, tf.errors.InvalidArgumentError):
            pass
        # A layer that insists on float32, or an operation without a kernel for more
        # digits: numbers are then too coarse to compare, but a missing gradient shows.
        finding = second_order(network, x, variables)
        return finding if finding.error is None else Finding(0.0)


def _input_shape(layer: keras.Layer) -> tuple[int | None, ...] | None:
    """Return the shape of a layer's only input, `None` if it has none or several."""
    shape = (layer.get_build_config() or {}).get("input_shape")
    if shape is None:  # activations and the like are never built
        shape = getattr(getattr(layer, "input", None), "shape", None)
    if not isinstance(shape, (tuple, list)):
        return None
    plain = all(side is None or isinstance(side, int) for side in shape)
    return tuple(shape) if plain else None


def layer_passes(layer: keras.Layer) -> bool:
    """Test one layer alone, between two smooth maps.

    Args:
        layer: A built layer; layers with several inputs are taken to pass.

    Returns:
        False if its second derivatives are missing or wrong.
    """
    shape = _input_shape(layer)
    if shape is None:
        return True
    rng = np.random.default_rng(2)
    x = tf.constant(rng.uniform(0.1, 1.0, [2, *(s or 8 for s in shape[1:])]))
    scale = tf.Variable(rng.uniform(0.5, 1.5, x.shape[1:]), dtype=tf.float64)

    def network(value: Any) -> Any:
        inputs = tf.cast(tf.sin(value * scale), layer.compute_dtype)
        with unchanged_state(layer):
            y = tf.cast(layer(inputs, training=True), tf.float64)
        return tf.reshape(tf.sin(y), (2, -1))

    try:
        with smooth_stand_ins([layer]):
            return _in_double_or_single(layer, network, x, [scale]).passed
    except (TypeError, ValueError, tf.errors.InvalidArgumentError):
        return True
