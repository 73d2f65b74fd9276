"""The layer whose feature maps tell where a network looks."""

from __future__ import annotations

from typing import Any

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
Shape = tuple[int, ...]


def find_feature_layer(
    model: Any, probe: Any, name: str | None = None
) -> tuple[keras.Layer, Shape]:
    """Find the last layer with feature maps of the last convolution's resolution.

    The model is run once and its innermost layers are watched. So the layer is the
    last convolution itself, or the normalization or activation behind it, and not a
    pooling. A convolution whose outputs are 1 x 1, such as a head, tells no place: it
    counts if there is no other. Without a convolution it is the last layer with
    outputs `(B, H, W, C)`.

    Args:
        model: Any Keras model.
        probe: A batch of inputs.
        name: Of a layer to take instead, at any depth.

    Returns:
        The layer, and the shape of its outputs without the batch axis.

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
        >>> layer, shape = find_feature_layer(net, np.ones((1, 8, 8, 1)))
        >>> layer is layers[0], shape
        (True, (6, 6, 4))
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Got {type(model).__name__}, expected a Keras model: Grad-CAM looks at "
            "one of its layers. Use 'gradient' or 'rise' for a callable."
        )
    watched = leaf_layers(model) if name is None else _named(model, name)
    seen: list[tuple[keras.Layer, Shape]] = []

    def see(layer: keras.Layer, call: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = call(*args, **kwargs)
        if tf.is_tensor(outputs) and outputs.shape.rank == 4:
            seen.append((layer, tuple(outputs.shape[1:])))
        return outputs

    with layer_calls(watched, see):
        model(probe, training=False)
    if not seen:
        which = "no layer" if name is None else f"not even layer {name!r}"
        raise ValueError(
            f"Got `{model.name}`, in which {which} has outputs (B, H, W, C), expected "
            "feature maps of a convolution. Use 'gradient' or 'occlusion', which need "
            "no such layer."
        )
    convolved = [found for found in seen if isinstance(found[0], _CONVOLUTIONS)]
    among = convolved or seen
    places = [shape[:2] for _, shape in among if shape[:2] != (1, 1)]
    wanted = places[-1] if places else among[-1][1][:2]
    return [found for found in seen if found[1][:2] == wanted][-1]


def _named(model: keras.Model, name: str) -> list[keras.Layer]:
    layers = [layer for layer in all_layers(model) if layer.name == name]
    if not layers:
        known = ", ".join(layer.name for layer in leaf_layers(model))
        raise ValueError(
            f"Got layer {name!r}, expected a layer of `{model.name}`: {known}. "
            "Leave it out to have one found."
        )
    return layers[-1:]
