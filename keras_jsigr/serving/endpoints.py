"""The endpoints of a served model: decision, logits and explanation."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.heads import head_kind
from keras_jsigr.core.scores import SCORES, HeadKind, ScoreName, unit_pull
from keras_jsigr.saliency.masks import Layout, map_axes, resolve_layout

EndpointFn = Callable[..., Any]


def named_inputs(specs: Any) -> list[tf.TensorSpec]:
    """Give every input of a model a legal and unique name for requests."""
    named: list[tf.TensorSpec] = []
    for position, spec in enumerate(keras.tree.flatten(specs)):
        name = re.sub(r"\W", "_", spec.name or "inputs", flags=re.ASCII)
        name = name if name[0].isalpha() else f"inputs_{name}"
        if name in {other.name for other in named}:
            name = f"{name}_{position}"
        named.append(tf.TensorSpec(spec.shape, spec.dtype, name=name))
    return named


def requested_specs(specs: Any, signature: Any) -> list[tf.TensorSpec]:
    """Return the named inputs, with the sides that a signature fixes."""
    named = named_inputs(specs)
    if signature is None:
        return named
    given = keras.tree.flatten(signature)
    fits = len(given) == len(named) and all(
        (part.dtype is None or tf.as_dtype(part.dtype) == spec.dtype)
        and spec.shape.is_compatible_with(part.shape)
        for part, spec in zip(given, named, strict=True)
    )
    if not fits:
        raise ValueError(
            f"`input_signature` does not fit the model: got {given}, expected one "
            f"spec of these shapes and dtypes for each input: {named}."
        )
    return [
        tf.TensorSpec(spec.shape.merge_with(part.shape), spec.dtype, name=spec.name)
        for part, spec in zip(given, named, strict=True)
    ]


def make_endpoints(
    model: Any,
    explain_score: ScoreName = "log_prob",
    layout: Layout | None = None,
    signature: Any = None,
) -> dict[str, EndpointFn]:
    """Make the functions that become the endpoints of the SavedModel."""
    arguments.choice("explain_score", explain_score, SCORES)
    kind = head_kind(model, model.head, model.classes)
    specs = requested_specs(model.input_specs, signature)
    names = [spec.name for spec in specs]
    axes = _map_axes(model, specs, layout)

    def packed(leaves: Any) -> Any:
        leaves = [_guarded(x, spec) for x, spec in zip(leaves, specs, strict=True)]
        return keras.tree.pack_sequence_as(model.input_specs, leaves)

    def serve(inputs: Any) -> Any:
        return model.base(packed(keras.tree.flatten(inputs)), training=False)

    def logits_of(leaves: Any) -> Any:
        return model.logits(packed(leaves), training=False)

    def logits(*leaves: Any) -> dict[str, Any]:
        return {"logits": tf.cast(logits_of(leaves), tf.float32)}

    def predict(*leaves: Any) -> dict[str, Any]:
        return _decision(logits_of(leaves), kind)[0]

    def explain(*leaves: Any) -> dict[str, Any]:
        watched = [leaves[index] for index in model.regularized]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for value in watched:
                tape.watch(value)
            z = tf.cast(logits_of(leaves), tf.float32)
        answer, targets = _decision(z, kind)
        pull = unit_pull(z, targets, explain_score, kind)
        gradients = tape.gradient(
            z,
            watched,
            output_gradients=pull.rows,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        single = len(watched) == 1
        for index, gradient in zip(model.regularized, gradients, strict=True):
            name = "saliency" if single else f"saliency_{names[index]}"
            answer[name] = pull.scaled(_over_channels(gradient, axes[index]))
        return answer

    endpoints = {"serving_default": predict, "logits": logits}
    endpoints |= {"explain": explain, "serve": serve}
    return {name: _answering(function) for name, function in endpoints.items()}


def _guarded(value: Any, spec: tf.TensorSpec) -> Any:
    """Refuse other shapes than those of the input, which may end the process.

    So may an empty batch: it gets one row, which `_answering` drops from the answer.
    """
    value = tf.ensure_shape(value, spec.shape)
    checks = []
    if None in spec.shape.as_list()[1:]:
        message = f"`{spec.name}` has an empty side, expected shape {spec.shape}."
        checks.append(tf.debugging.assert_positive(tf.shape(value)[1:], message))
    with tf.control_dependencies(checks):
        extra = tf.cast(tf.equal(tf.shape(value)[0], 0), tf.int32)
        paddings = [[0, extra]] + [[0, 0]] * (len(spec.shape) - 1)
        return tf.ensure_shape(tf.pad(value, paddings), spec.shape)


def _answering(function: EndpointFn) -> EndpointFn:
    """Drop the row that an empty batch got."""

    def endpoint(*args: Any) -> Any:
        rows = tf.shape(keras.tree.flatten(args)[0])[0]
        return keras.tree.map_structure(lambda part: part[:rows], function(*args))

    return endpoint


def _decision(logits: Any, kind: HeadKind) -> tuple[dict[str, Any], Any]:
    """Return the decision, and it as targets, so that exactly it is explained."""
    z = tf.cast(logits, tf.float32)
    if kind == "softmax":
        label = tf.argmax(z, axis=-1)
        answer = {"probabilities": tf.nn.softmax(z), "class": label}
        return answer, tf.one_hot(label, z.shape[-1])
    p = tf.nn.sigmoid(z)
    decided = tf.cast(p > 0.5, tf.int64)
    label = decided[:, 0] if z.shape[-1] == 1 else decided
    return {"probabilities": p, "class": label}, tf.cast(decided, tf.float32)


def _map_axes(model: Any, specs: list[tf.TensorSpec], layout: Layout | None) -> dict[int, int]:
    """Count the axes of the map of every regularized input."""
    if layout is None and model.map_table is not None:
        layout = model.map_table.bank.layout
    found = {}
    for index in model.regularized:
        sides = [side or 1 for side in specs[index].shape[1:]]
        # Without a layout all axes but the last, also for videos and the like.
        default = max(1, len(sides) - 1)
        found[index] = map_axes(resolve_layout(sides, layout)) if layout else default
    return found


def _over_channels(gradient: Any, axes: int) -> Any:
    """Sum `|g|` over the channel axes, those behind the map's own."""
    magnitude = tf.abs(tf.cast(gradient, tf.float32))
    channels = list(range(1 + axes, magnitude.shape.rank))
    return tf.reduce_sum(magnitude, channels) if channels else magnitude
