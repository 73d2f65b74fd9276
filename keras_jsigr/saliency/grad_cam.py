"""Grad-CAM, and the search for the layer whose feature maps it weighs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.batching import Core
from keras_jsigr.core.heads import ignored_labels
from keras_jsigr.core.inputs import as_float
from keras_jsigr.core.keras_compat import (
    all_layers,
    layer_calls,
    leaf_layers,
    only_call,
)
from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.scores import SCORES, ScoreName
from keras_jsigr.saliency.base import (
    Explainer,
    SaliencyMethod,
    input_gradient,
    targets_of,
)
from keras_jsigr.saliency.masks import resolve_layout

_CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)


class FeatureLayer(NamedTuple):
    """A call of a layer, counted from zero, and the shape of its feature maps."""

    layer: keras.Layer
    shape: tuple[int, ...]
    call: int


def find_feature_layer(model: Any, probe: Any, name: str | None = None) -> FeatureLayer:
    """Find the last layer with feature maps of the last convolution's resolution."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Got {type(model).__name__}, expected a Keras model: Grad-CAM needs the "
            "outputs of one of its layers. Use 'gradient' or 'rise' for a callable."
        )
    leaves = leaf_layers(model)
    chosen = leaves if name is None else _named(model, name)
    seen = _feature_maps(model, probe, list(dict.fromkeys([*leaves, *chosen])))
    candidates = [found for found in seen if found.layer in chosen]
    if not candidates:
        which = "no layer with" if name is None else f"layer {name!r} without"
        raise ValueError(
            f"Got `{model.name}`, {which} outputs (B, H, W, C), expected feature maps "
            "of a convolution. Use 'gradient' or 'occlusion', which need no such layer."
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
    """Return the sides of the last convolution's outputs, if possible not 1 x 1."""
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


@dataclass(frozen=True, kw_only=True)
class GradCAM(SaliencyMethod):
    """Weigh the feature maps of a convolution by their effect on the score.

    `relu(sum_k w_k A_k)` with the feature maps `A_k` of a layer and
    `w_k = mean_ij ds / dA_kij`, resized bilinearly to the image: one forward pass and
    the part of a backward pass above the layer. For images, channels last; as coarse
    as the layer is.

    Args:
        layer: Name of the layer; `None` finds the last one whose outputs have the
            resolution of the last convolution; the explainer's `method.layer` names it.
            Of a layer that is called several times, only that call counts.
        score: `"logit"` (the paper's), `"log_prob"` or `"margin"`. The logit of a
            single unit `z` is `z` for the class 1 and `-z` for the class 0.
        verbose: 1 prints which layer was found, 0 does not.
        layout: `"image"` or `None`.

    Raises:
        ValueError: If a setting is out of range, the data are no images, or no layer
            has outputs `(B, H, W, C)`.
        TypeError: If the model is not a Keras model.

    Reference:
        arXiv 1610.02391, equations 1 and 2.

    Example:
        >>> import keras, numpy as np
        >>> from keras_jsigr.saliency import explain
        >>> features = keras.layers.Conv2D(4, 3, strides=2, name="features")
        >>> layers = [features, keras.layers.Flatten(), keras.layers.Dense(3)]
        >>> net = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        >>> explain(net, np.ones((2, 8, 8, 1)), method="grad_cam").shape
        keras_jsigr: Grad-CAM uses layer 'features', outputs (3, 3, 4).
        (2, 8, 8)
    """

    layer: str | None = None
    score: ScoreName = "logit"
    verbose: int = 1

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        arguments.choice("layout", self.layout, (None, "image"))
        arguments.choice("score", self.score, SCORES)

    def explainer(self, model: Any, probe: Any, batch_size: int = 128) -> Explainer:
        """Compile the method for a model, and fill in and tell the layer found."""
        probe = as_float(probe)
        place = find_feature_layer(model, probe, self.layer)
        if self.layer is None:
            arguments.tell(
                f"Grad-CAM uses layer '{place.layer.name}', outputs {place.shape}.",
                self.verbose,
            )
        fitted, classes = self.fitted(model, probe)
        method = replace(fitted, layer=place.layer.name)
        core = method._core_at(place, model, probe)
        return Explainer(method, core, batch_size, classes, ignored_labels(model))

    def core(self, model: Any, probe: Any) -> Core:
        """Return the traceable function of `(x, y)`; see `SaliencyMethod`."""
        probe = as_float(probe)
        place = find_feature_layer(model, probe, self.layer)
        return self._core_at(place, model, probe)

    def _core_at(self, place: FeatureLayer, model: Any, probe: Any) -> Core:
        resolve_layout(tuple(probe.shape[1:]), "image")
        logits_fn = as_logits(model, probe, fold=False)

        def explain(x: tf.Tensor, y: tf.Tensor | None) -> tf.Tensor:
            x, seen = as_float(x), []

            def see(_: keras.Layer, call: Any, *args: Any, **kwargs: Any) -> Any:
                seen.append(call(*args, **kwargs))
                return seen[-1]

            with layer_calls([place.layer], only_call(place.call, see)):
                logits_fn(x)

            # TensorFlow prunes the layers above from the pass that sees the features,
            # and the layers below from this one: together they are one forward pass.
            def logits_of(features: tf.Tensor) -> tf.Tensor:
                given = tf.cast(features, seen[-1].dtype)
                put = only_call(place.call, lambda *_, **__: given)
                with layer_calls([place.layer], put):
                    return logits_fn(x)

            # In float32: float16 would lose what `input_gradient` scales back up.
            features = tf.cast(seen[-1], tf.float32)
            slopes = input_gradient(
                logits_of,
                features,
                targets_of(y, self.known_kind),
                self.score,
                self.known_kind,
            )
            weights = tf.reduce_mean(slopes, (1, 2), keepdims=True)
            maps = tf.nn.relu(tf.reduce_sum(weights * features, -1, keepdims=True))
            return tf.image.resize(maps, x.shape[1:3], "bilinear")[..., 0]

        return explain
