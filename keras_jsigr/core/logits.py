"""Logits of anything that classifies, and its errors in words."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.acceleration import fold_batchnorm
from keras_jsigr.core.heads import Head, close, find_head, looks_like_probabilities, saturates
from keras_jsigr.core.keras_compat import seed_states
from keras_jsigr.core.variables import OWN, held, stateless, unchanged


def has_valid_logits(logits: tf.Tensor) -> tf.Tensor:
    """Tell which rows are valid logits: no NaN, no +inf, at least one finite entry."""
    finite = tf.math.is_finite(logits)
    # A comparison with NaN is false.
    bounded = tf.reduce_all(finite | (logits < 0), axis=-1)
    return bounded & tf.reduce_any(finite, axis=-1)


def base_model(model: Any) -> Any:
    """Return the base of a hardened model, and anything else as it is."""
    return model.base if is_hardened(model) else model


def is_hardened(model: Any) -> bool:
    """Tell whether `harden` made this model, without importing its class."""
    return isinstance(model, keras.Model) and isinstance(getattr(model, "head", None), Head)


def known_epsilon(*models: Any) -> float | None:
    """Return the radius that the first hardened model withstands, in input units."""
    radii = [getattr(model, "epsilon", None) for model in filter(is_hardened, models)]
    return next((radius for radius in radii if radius is not None), None)


def known_input_range(*models: Any) -> Any:
    """Return the input range of the first hardened model, or `None`."""
    hardened = next(filter(is_hardened, models), None)
    return None if hardened is None else getattr(hardened, "input_range", None)


LogitsFn = Callable[[Any], tf.Tensor]


# What TensorFlow and Keras put around the line that says what happened.
_WRAPPING = re.compile(
    r"Graph execution error:|Detected at node|File \"|Traceback|\d+ root error|"
    r"\(\d\) |Exception encountered when calling|Arguments received|\[\[|"
    r"<stack trace|Input tensors|Received|•|return |ret = "
)
_NAMED = re.compile(r"(?:[\w.]*\.)?(\w*(?:Error|Exception)): (.*)")


def innermost_line(text: str | None) -> str | None:
    """Return the line of an error's text that says what happened, or `None`."""
    text = re.sub(r"\x1b\[\d*m|\{\{function_node.*?\}\} ?|\[\[\{\{.*|\[Op:.*", "", text or "")
    outer = _NAMED.match(text)
    lines = [line.strip() for line in (outer[2] if outer else "").splitlines()]
    lines += [line.strip() for line in text.splitlines()[1 if outer else 0 :]]
    lines = [line for line in lines if line and not _WRAPPING.match(line)]
    named = [found for line in lines if (found := _NAMED.match(line))]
    if named:
        return f"{named[-1][1]}: {named[-1][2]}"[:300]
    kind = f"{outer[1]}: " if outer else ""
    return (kind + lines[0])[:300] if lines else (outer and outer[1])


@contextmanager
def told_in_words() -> Iterator[None]:
    """Let an error of TensorFlow say what happened, before where."""
    try:
        yield
    except tf.errors.OpError as error:
        line = innermost_line(str(error)) or type(error).__name__
        where = "It happened while TensorFlow ran the model; the exception above shows where."
        raise type(error)(error.node_def, error.op, f"{line}\n{where}") from error


@dataclass(frozen=True)
class Logits:
    """Map inputs to logits; margins below `resolution` tie, as probabilities round."""

    function: LogitsFn
    resolution: float = 0.0

    def __call__(self, x: Any) -> tf.Tensor:
        """Return float logits `(B, C)`."""
        return self.function(x)


# What other summation orders change in float32, beside the spacing of probabilities.
_NOISE, _SPACINGS = 4e-6, 4.0


def _resolution(dtype: Any) -> float:
    half = {tf.float16: 2.0**-10, tf.bfloat16: 2.0**-7}
    return _NOISE + _SPACINGS * half.get(tf.as_dtype(dtype), 2.0**-23)


def as_logits(model: Any, probe: Any, fold: bool = True) -> Logits:
    """Return inputs -> logits for any classifier; a Keras model stays as it is."""
    _check_callable(model)
    layers: list[keras.Layer] = [item for item in held(model) if isinstance(item, keras.Layer)]
    asked = [model] if tf.executing_eagerly() else []
    # What is not built yet would not be, in a block without assignments.
    built = isinstance(model, keras.Model) or all(each.built for each in layers)
    with told_in_words(), unchanged(*asked, layers=not built):
        with stateless() if built else nullcontext():
            if isinstance(model, keras.Model):
                raw, resolution = _logits_of_model(model, probe)
                raw = fold_batchnorm(model, raw, probe) if fold else raw
            else:
                raw, resolution = _logits_of_callable(model, probe)
        raw = _without_side_effects(layers, raw, probe) if layers else raw

    def logits(x: Any) -> tf.Tensor:
        return as_classes(tf.cast(raw(x), tf.float32))

    return Logits(logits, resolution)


def _without_side_effects(layers: list[keras.Layer], raw: LogitsFn, probe: Any) -> LogitsFn:
    """Discard what layers assign, but let the seeds in use go on: in copies."""
    copies: list[tuple[Any, tf.Variable]] = []
    seeds = [s for each in layers for s in seed_states(each)] if tf.executing_eagerly() else []
    if seeds:
        with stateless() as scope:
            raw(probe)
        used = [seed for seed in seeds if scope.get_current_value(seed) is not None]
        copies = [(seed, tf.Variable(seed.value, False, name=OWN)) for seed in used]

    def logits(x: Any) -> tf.Tensor:
        now = [(seed, copy.read_value()) for seed, copy in copies]
        with stateless(now) as scope:
            outputs = raw(x)
        for seed, copy in copies:
            copy.assign(scope.get_current_value(seed))
        return outputs

    return logits


def as_classes(logits: tf.Tensor) -> tf.Tensor:
    """Return logits of at least two classes: `(0, z)` for one sigmoid unit `z`."""
    if logits.shape[-1] > 1:
        return logits
    return tf.concat([tf.zeros_like(logits), logits], axis=-1)


def _check_callable(model: Any) -> None:
    if not callable(model):
        raise TypeError(
            f"Got {type(model).__name__}, expected a Keras model or a callable that "
            "returns logits. Pass the model itself, not its path or its outputs."
        )


def _logits_of_model(model: keras.Model, probe: Any) -> tuple[LogitsFn, float]:
    own, head = _own_logits(model, probe)
    head = head or find_head(model, probe)
    answers = getattr(base_model(model), "outputs", None)
    dtype = answers[0].dtype if answers else model.compute_dtype
    resolution = 0.0 if head.kind == "linear" else _resolution(dtype)
    if own is not None:
        return own, resolution

    def behind(x: Any) -> tf.Tensor:
        with head.removed():
            return model(x, training=False)

    return behind, resolution


def _logits_of_callable(model: Any, probe: Any) -> tuple[LogitsFn, float]:
    outputs = one_output(model(tf.convert_to_tensor(probe)))
    if outputs.shape.rank != 2:
        raise ValueError(
            f"The model's outputs have shape {tuple(outputs.shape)}, expected (B, C). "
            "Pass a callable that returns one row of class scores per example."
        )
    classes = outputs.shape[-1]

    def asked(x: Any) -> tf.Tensor:
        # Code that TensorFlow cannot look into tells no shape.
        return tf.ensure_shape(one_output(model(x)), (None, classes))

    if looks_like_probabilities(outputs):
        return lambda x: _log(asked(x)), _resolution(outputs.dtype)
    if saturates(asked, probe, outputs):
        return lambda x: _log_odds(asked(x)), _resolution(outputs.dtype)
    return asked, getattr(model, "resolution", 0.0)


def _log(p: tf.Tensor) -> tf.Tensor:
    # In half precision the smallest number would be zero.
    return tf.math.log(tf.maximum(_wide(p), np.finfo(np.float32).tiny))


def _log_odds(p: tf.Tensor) -> tf.Tensor:
    return _log(p) - _log(1.0 - _wide(p))


def _wide(p: tf.Tensor) -> tf.Tensor:
    return p if p.dtype == tf.float64 else tf.cast(p, tf.float32)


def _own_logits(model: keras.Model, probe: Any) -> tuple[LogitsFn | None, Head | None]:
    """Return the model's method `logits` and its head, if the answers are of these."""
    # A method of the class: many name a layer `logits`.
    if not callable(getattr(type(model), "logits", None)):
        return None, None
    takes = "training" in inspect.signature(model.logits).parameters
    arguments = {"training": False} if takes else {}

    def own(x: Any) -> Any:
        return model.logits(x, **arguments)

    if base_model(model) is not model:
        return own, model.head  # of a hardened model
    try:
        logits, outputs = own(probe), model(probe, training=False)
    except (TypeError, ValueError, tf.errors.InvalidArgumentError):
        return None, None  # of something else, such as a latent variable
    tensors = tf.is_tensor(logits) and tf.is_tensor(outputs)
    same = tensors and logits.shape == outputs.shape
    heads = (Head("linear"), Head("softmax"), Head("sigmoid")) if same else ()
    fits = [head for head in heads if close(head.activate(logits), outputs)]
    return (own, fits[0]) if fits else (None, None)


def output_units(model: Any, probe: Any) -> int:
    """Count the outputs of a classifier, before one of them becomes two classes."""
    _check_callable(model)
    given = {"training": False} if isinstance(model, keras.Model) else {}
    with told_in_words(), stateless():
        outputs = one_output(model(tf.convert_to_tensor(probe), **given))
    return int(outputs.shape[-1])


def one_output(outputs: Any) -> tf.Tensor:
    """Take the class scores out of what a callable returns."""
    if outputs is None:
        raise TypeError(
            "The model returned None, expected class scores (B, C). Let the callable return them."
        )
    if isinstance(outputs, dict):
        outputs = [outputs["logits"]] if "logits" in outputs else [*outputs.values()]
    several = isinstance(outputs, list | tuple)
    shapes = [tuple(getattr(each, "shape", ())) for each in outputs] if several else []
    if shapes and all(len(shape) > 1 for shape in shapes):
        if len(outputs) != 1:
            raise ValueError(
                f"Got {len(outputs)} outputs of shapes {shapes}, expected one tensor "
                "(B, C) of class scores, or one named 'logits'. Pass a callable that "
                "returns one of them, such as `lambda x: model(x)[0]`."
            )
        outputs = outputs[0]
    return tf.convert_to_tensor(outputs)
