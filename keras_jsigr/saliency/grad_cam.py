"""Grad-CAM, and the search for the layer whose feature maps it weighs."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core import arguments, keras_compat
from keras_jsigr.core.batching import Core
from keras_jsigr.core.inputs import as_float, random_weights
from keras_jsigr.core.keras_compat import (
    all_layers,
    layer_calls,
    leaf_layers,
    only_call,
)
from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.scores import SCORES, ScoreName
from keras_jsigr.core.variables import stateless
from keras_jsigr.saliency import base
from keras_jsigr.saliency.base import SaliencyMethod, input_gradient, layout_of, setting
from keras_jsigr.saliency.masks import Layout


def _layers(names: str) -> tuple[type[keras.Layer], ...]:
    return tuple(getattr(keras.layers, name) for name in names.split())


_CONVOLUTIONS = _layers("Conv2D Conv2DTranspose DepthwiseConv2D SeparableConv2D")
# Their outputs may have other sides than their inputs, in the same directions.
_RESIZING = _CONVOLUTIONS + _layers(
    "AveragePooling2D MaxPooling2D ZeroPadding2D Cropping2D UpSampling2D"
)
_REARRANGING = ("Reshape", "Permute", "Transpose", "Moveaxis", "Swapaxes", "Lambda")
# These hold layers whose outputs have axes for heads.
_ATTENTION = _layers("MultiHeadAttention GroupQueryAttention EinsumDense")


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
            f"Got `{model.name}`, {which} outputs (B, H, W, C) that lie as the image does, "
            "expected feature maps of a convolution; tokens of attention are none, nor is what a "
            "Dense layer mixed. Use 'gradient', 'occlusion' or 'rise', which need no such layer."
        )
    # The sides of the last convolution's outputs, if possible not 1 x 1. One channel
    # is a gate, or an answer for every place, rather than features.
    seen, candidates = ([f for f in maps if f.shape[2] > 1] or maps for maps in (seen, candidates))
    among = [found for found in seen if isinstance(found.layer, _CONVOLUTIONS)] or seen
    sides = [found.shape[:2] for found in among]
    wanted = ([side for side in sides if side != (1, 1)] or sides)[-1]
    return ([f for f in candidates if f.shape[:2] == wanted] or candidates)[-1]


def _feature_maps(model: keras.Model, probe: Any, layers: list[keras.Layer]) -> list[FeatureLayer]:
    """List the calls of the layers with outputs `(B, H, W, C)` over the image's grid.

    The grid is followed from layer to layer. Where one reshapes, or code outside of
    layers does, numbers decide: the model runs with random weights on an image of
    noise, and on copies with other noise in one of the quarters.
    """
    seen: list[FeatureLayer] = []
    calls: Counter[int] = Counter()
    images = _quarters(probe)
    told: dict[int, tuple[Any, bool]] = {id(images): (images, True)}
    parts = keras_compat.with_functional_parts(all_layers(model))
    operations = [op for part in parts for op in getattr(part, "operations", ())]
    attention = [part for part in parts if isinstance(part, _ATTENTION)]
    heads = [id(inner) for part in attention for inner in all_layers(part)]

    def see(layer: keras.Layer, call: Any, *args: Any, **kwargs: Any) -> Any:
        number = calls[id(layer)]
        calls[id(layer)] += 1
        outputs = call(*args, **kwargs)
        if not tf.is_tensor(outputs) or outputs.shape.rank != 4:
            return outputs
        inputs = [each for each in keras.tree.flatten((args, kwargs)) if _is_map(each)]
        known = [told[id(each)][1] for each in inputs if id(each) in told]
        same = [each for each in inputs if each.shape[1:3] == outputs.shape[1:3]]
        keeps = isinstance(layer, _RESIZING) or bool(same)
        if id(layer) in heads or len(outputs) != len(images):
            good = False
        elif known and keeps and not type(layer).__name__.startswith(_REARRANGING):
            good = all(known)
        else:
            good = _moves_along(outputs, doubt=isinstance(layer, _CONVOLUTIONS))
        told[id(outputs)] = (outputs, good)
        if good and isinstance(layer, keras.Layer):
            seen.append(FeatureLayer(layer, tuple(outputs.shape[1:]), number))
        return outputs

    hooked = layers + [
        op for op in operations if not isinstance(op, keras.Layer) or len(all_layers(op)) == 1
    ]
    with stateless(), random_weights(model), layer_calls(hooked, see):
        model(images, training=False)
    return [found for found in seen if found.layer in layers]


def _is_map(value: Any) -> bool:
    # What is scaled by one number per channel keeps its grid.
    ranked = tf.is_tensor(value) and value.shape.rank == 4
    return ranked and tuple(value.shape[1:3]) != (1, 1)


def _quarters(probe: Any) -> tf.Tensor:
    """Return an image of noise, and the same with other noise in each quarter."""
    probe = as_float(probe)
    low, high = (float(f(probe)) for f in (tf.reduce_min, tf.reduce_max))
    if not -math.inf < low < high < math.inf:
        low, high = 0.0, 1.0
    halves = []
    for axis, side in enumerate(probe.shape[1:3]):
        ones = [1] * (probe.shape.rank - 1)
        ones[axis] = side
        first = tf.reshape(tf.range(side) < max(side // 2, 1), ones)
        halves.append((first, ~first if side > 1 else first))
    draw = tf.random.stateless_uniform
    shape = probe.shape[1:]
    image = tf.cast(draw(shape, (0, 1), low, high), probe.dtype)
    other = tf.cast(draw(shape, (0, 2), low, high), probe.dtype)
    moved = image + _NUDGE * (other - image)
    quarters = [top & left for top in halves[0] for left in halves[1]]
    return tf.stack([image, *(tf.where(part, moved, image) for part in quarters)])


def _moves_along(outputs: tf.Tensor, doubt: bool) -> bool:
    """Tell whether a change down or right in the image is one in the maps.

    `doubt` is the answer where a change moves hardly at all.
    """
    maps = np.nan_to_num(np.asarray(tf.cast(outputs, tf.float32)))
    change = np.square(maps[1:] - maps[:1]).sum(-1)  # of the four quarters
    if not change.any(axis=(1, 2)).all():
        return doubt
    for axis in (1, 2):
        side = maps.shape[axis]
        along = change.sum(axis=3 - axis)
        centre = ((along @ np.arange(side)) / along.sum(-1)).reshape(2, 2) / side
        moves = [np.diff(centre, axis=which).mean() for which in (0, 1)]
        own, other = moves[axis - 1], moves[2 - axis]
        if side > 1 and max(own, abs(other)) < _LEAST_MOVE and not doubt:
            return False
        if side > 1 and abs(other) > max(own, _LEAST_MOVE):
            return False
    return True


# A small change, so that no network answers it by a jump; and the share of a side by
# which it has to move, of the half side that lies between quarters.
_NUDGE, _LEAST_MOVE = 0.02, 0.05


def _named(model: keras.Model, name: str) -> list[keras.Layer]:
    layers = [layer for layer in all_layers(model) if layer.name == name]
    if not layers:
        known = ", ".join(layer.name for layer in leaf_layers(model))
        raise ValueError(
            f"Got layer {name!r}, expected the name of a layer of `{model.name}`: "
            f"{known}. Leave it out to have one found."
        )
    return layers


def _check_name(name: str, layer: Any) -> None:
    if not isinstance(layer, str):
        raise TypeError(
            f"Got {name} {layer!r}, expected its name: pass `layer.name`, here "
            f"{getattr(layer, 'name', 'conv')!r}."
        )


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
        >>> layers = [keras.Input((8, 8, 1)), features, keras.layers.Flatten()]
        >>> net = keras.Sequential(layers)
        >>> explain(net, np.ones((2, 8, 8, 1)), method="grad_cam").shape
        keras_jsigr: Grad-CAM uses layer 'features', outputs (3, 3, 4).
        (2, 8, 8)
    """

    layout: Layout | None = setting(None, arguments.choice, (None, "image"))
    layer: str | None = setting(None, _check_name)
    score: ScoreName = setting("logit", arguments.choice, SCORES)
    verbose: int = 1

    def fitted(self, model: Any, probe: Any) -> tuple[Self, int]:
        """Fill in the layer too, and tell which one was found."""
        _check_image(model, probe, self.layout)
        fitted, classes = super().fitted(model, probe)
        place = find_feature_layer(model, probe, self.layer)
        if self.layer is None:
            told = f"Grad-CAM uses layer '{place.layer.name}', outputs {place.shape}."
            arguments.tell(told, self.verbose)
        return replace(fitted, layer=place.layer.name), classes

    def core(self, model: Any, probe: Any) -> Core:
        """Return the traceable function of `(x, y)`; see `SaliencyMethod`."""
        probe = as_float(probe)
        _check_image(model, probe, self.layout)
        place = find_feature_layer(model, probe, self.layer)
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
            targets, kind = base.targets_of(y, self.known_kind), self.known_kind
            slopes = input_gradient(logits_of, features, targets, self.score, kind)
            weights = tf.reduce_mean(slopes, (1, 2), keepdims=True)
            maps = tf.nn.relu(tf.reduce_sum(weights * features, -1, keepdims=True))
            return tf.image.resize(maps, x.shape[1:3], "bilinear")[..., 0]

        return explain


def _check_image(model: Any, probe: tf.Tensor, layout: Layout | None) -> None:
    shape = tuple(probe.shape[1:])
    if len(shape) != 3 and (layout is None or len(shape) != 2):
        raise ValueError(
            f"Got examples of shape {shape}, expected images (H, W, C), or (H, W) with "
            "layout='image': Grad-CAM is for images. Use 'gradient' for other data, "
            "with `reduce=False` for volumes."
        )
    layout_of(model, probe, "image")
