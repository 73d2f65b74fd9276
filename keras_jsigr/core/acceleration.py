"""Batch normalization at inference, folded into the layer before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.inputs import random_inputs_like, random_weights
from keras_jsigr.core.keras_compat import layer_calls, leaf_layers
from keras_jsigr.core.variables import stateless

# What gives `W x + b` before its activation.
LINEAR_LAYERS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Dense,
    keras.layers.DepthwiseConv2D,
)
# Power of two: what is doubled and halved has the same digits as before.
_TWICE = 2.0
Pairs = dict[keras.Layer, keras.layers.BatchNormalization]


def fold_batchnorm(
    model: keras.Model, logits_fn: Callable[[Any], tf.Tensor], probe: Any
) -> Callable[[Any], tf.Tensor]:
    """Return the same function with fewer operations, where that is possible."""
    if not any(map(_may_fold, leaf_layers(model))) or not tf.executing_eagerly():
        return logits_fn
    pairs, outputs = _seen_pairs(model, logits_fn, probe)
    members = [*pairs.keys(), *pairs.values()]

    def scaled(layer: Any, call: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if layer in pairs:
            return _TWICE * call(inputs, *args, **kwargs)
        return call(inputs / _TWICE, *args, **kwargs)

    def folded(x: Any) -> tf.Tensor:
        with layer_calls(members, _fold(pairs)):
            return logits_fn(x)

    if not pairs:
        return logits_fn
    anything = random_inputs_like(probe)
    with random_weights(model):
        expected = logits_fn(anything)
        with layer_calls(members, scaled):
            apart = not _equal(logits_fn(anything), expected)
    return logits_fn if apart or not _equal(folded(probe), outputs) else folded


def _fold(pairs: Pairs) -> Callable[..., Any]:
    def hook(layer: Any, call: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if layer not in pairs:
            return tf.nn.bias_add(inputs, _shift(layer))
        scale, kernel = _scale(pairs[layer]), tf.convert_to_tensor(layer.kernel)
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        shape = tf.shape(kernel)[-2:] if depthwise else [-1]
        values = [(layer.kernel, kernel * tf.reshape(scale, shape))]
        if layer.use_bias:
            values.append((layer.bias, layer.bias * scale))
        with stateless(values):
            return call(inputs, *args, **kwargs)

    return hook


def _scale(norm: keras.layers.BatchNormalization) -> tf.Tensor:
    scale = tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    return scale * norm.gamma if norm.scale else scale


def _shift(norm: keras.layers.BatchNormalization) -> tf.Tensor:
    shift = -norm.moving_mean * _scale(norm)
    return shift + norm.beta if norm.center else shift


def _seen_pairs(
    model: keras.Model, logits_fn: Callable[[Any], tf.Tensor], probe: Any
) -> tuple[Pairs, tf.Tensor]:
    """Find the normalizations fed by one linear layer alone, and the logits."""
    made: list[tuple[Any, keras.Layer]] = []
    feeds: dict[keras.Layer, set[keras.Layer | None]] = {}
    fed: dict[keras.Layer, set[keras.Layer | None]] = {}

    def see(layer: Any, call: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = call(inputs, *args, **kwargs)
        if not isinstance(layer, keras.layers.BatchNormalization):
            made.append((outputs, layer))
            return outputs
        makers = [maker for tensor, maker in made if tensor is inputs]
        usual = not kwargs.get("training") and not any(a is True for a in args)
        maker = makers[-1] if makers and usual else None
        fed.setdefault(layer, set()).add(maker)
        if makers:
            feeds.setdefault(makers[-1], set()).add(layer)
        return outputs

    leaves = leaf_layers(model)
    with layer_calls([x for x in leaves if _may_fold(x) or _may_take(x)], see):
        outputs = logits_fn(probe)
    pairs = {
        maker: norm
        for maker, norms in feeds.items()
        for norm in norms
        if len(norms) == 1 and fed[norm] == {maker}
    }
    return pairs, outputs


def _may_fold(layer: keras.Layer) -> bool:
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.built
        and layer.axis in (-1, layer.input_spec.ndim - 1)
        and layer.dtype_policy.name in ("float32", "float64")
    )


def _may_take(layer: keras.Layer) -> bool:
    return (
        type(layer) in LINEAR_LAYERS
        and layer.built
        and layer.activation in (None, keras.activations.linear)
        and layer.dtype_policy.name in ("float32", "float64")
        and getattr(layer, "data_format", None) != "channels_first"
        and not getattr(layer, "lora_enabled", False)
    )


def _equal(a: tf.Tensor, b: tf.Tensor) -> bool:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return bool(np.allclose(a, b, rtol=0.0, atol=1e-5 * max(1.0, np.abs(b).max())))
