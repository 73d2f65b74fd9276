"""The layer whose feature maps tell where a network looks."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_jsigr.core.keras_private import all_layers, leaf_layers
from keras_jsigr.core.layer_calls import layer_calls

_CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)


class FeatureLayer(NamedTuple):
    """Where a network is looked at.

    Attributes:
        layer: The layer.
        shape: The shape of its outputs without the batch axis.
        call: Which of its calls in one run of the model, from 0.
    """

    layer: keras.Layer
    shape: tuple[int, ...]
    call: int


def find_feature_layer(model: Any, probe: Any, name: str | None = None) -> FeatureLayer:
    """Find the last layer with feature maps of the last convolution's resolution.

    The model is run once and its innermost layers are watched. So the layer is the
    last convolution itself, or the normalization or activation behind it, and not a
    pooling. A convolution whose outputs are 1 x 1, such as a head, tells no place: it
    counts if there is no other. Without a convolution it is the last layer with
    outputs `(B, H, W, C)`. Of a layer that is called several times it is one call: the
    last with that resolution, or, of a layer that is named, the last if none has it.

    Args:
        model: Any Keras model.
        probe: A batch of inputs.
        name: Of a layer to take instead, at any depth.

    Returns:
        The layer, the shape of its outputs, and which of its calls it is.

    Raises:
        ValueError: If there is none.
        TypeError: If `model` is not a Keras model.

    Example:
        >>> import keras, numpy as np
        >>> from keras_jsigr.saliency.methods.feature_layer import find_feature_layer
        >>> layers = [
        ...     keras.layers.Conv2D(4, 3),
        ...     keras.layers.MaxPooling2D(2),
        ...     keras.layers.Flatten(),
        ... ]
        >>> net = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        >>> layer, shape, call = find_feature_layer(net, np.ones((1, 8, 8, 1)))
        >>> layer is layers[0], shape, call
        (True, (6, 6, 4), 0)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Got {type(model).__name__}, expected a Keras model: Grad-CAM looks at "
            "one of its layers. Use 'gradient' or 'rise' for a callable."
        )
    leaves = leaf_layers(model)
    chosen = leaves if name is None else _named(model, name)
    seen = _feature_maps(model, probe, list(dict.fromkeys([*leaves, *chosen])))
    candidates = [found for found in seen if found.layer in chosen]
    if not candidates:
        which = "no layer" if name is None else f"not even layer {name!r}"
        raise ValueError(
            f"Got `{model.name}`, in which {which} has outputs (B, H, W, C), expected "
            "feature maps of a convolution. Use 'gradient' or 'occlusion', which need "
            "no such layer."
        )
    wanted = _resolution(seen)
    return ([f for f in candidates if f.shape[:2] == wanted] or candidates)[-1]


def _feature_maps(
    model: keras.Model, probe: Any, layers: list[keras.Layer]
) -> list[FeatureLayer]:
    """List the calls of the layers with outputs `(B, H, W, C)`, in their order."""
    seen: list[FeatureLayer] = []
    calls: Counter[int] = Counter()

    def see(layer: keras.Layer, call: Any, *args: Any, **kwargs: Any) -> Any:
        number = calls[id(layer)]
        calls[id(layer)] += 1
        outputs = call(*args, **kwargs)
        if tf.is_tensor(outputs) and outputs.shape.rank == 4:
            seen.append(FeatureLayer(layer, tuple(outputs.shape[1:]), number))
        return outputs

    with layer_calls(layers, see):
        model(probe, training=False)
    return seen


def _resolution(seen: list[FeatureLayer]) -> tuple[int, ...]:
    """Return the sides of the last convolution's outputs, not 1 x 1 if possible."""
    among = [found for found in seen if isinstance(found.layer, _CONVOLUTIONS)] or seen
    sides = [found.shape[:2] for found in among]
    return ([side for side in sides if side != (1, 1)] or sides)[-1]


def _named(model: keras.Model, name: str) -> list[keras.Layer]:
    layers = [layer for layer in all_layers(model) if layer.name == name]
    if not layers:
        known = ", ".join(layer.name for layer in leaf_layers(model))
        raise ValueError(
            f"Got layer {name!r}, expected a layer of `{model.name}`: {known}. "
            "Leave it out to have one found."
        )
    return layers[-1:]
