"""What kind of decision a model makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self, TypeVar, get_args

import keras
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.batching import BatchedExplainer, Core
from keras_jsigr.core.heads import head_kind, head_of
from keras_jsigr.core.inputs import as_float
from keras_jsigr.core.logits import LogitsFn, output_units
from keras_jsigr.core.scores import (
    HeadKind,
    ScoreName,
    class_targets,
    predicted_targets,
    unit_pull,
)
from keras_jsigr.saliency.masks import Layout

_Name = TypeVar("_Name", bound=str)


class Decision(NamedTuple):
    """Between what a model decides."""

    kind: HeadKind
    classes: int
    units: int

    def score(self, name: _Name) -> _Name | Literal["margin"]:
        """Say which score of the logits of `as_logits` is meant by a name."""
        return "margin" if self.units == 1 and name == "logit" else name


def decision_of(model: Any, probe: Any, kind: HeadKind | None = None) -> Decision:
    """Find out between what a model decides."""
    units = output_units(model, probe)
    if units == 1:
        return Decision("softmax", 2, 1)
    if kind is None and isinstance(model, keras.Model):
        kind = head_kind(model, head_of(model, probe), units)
    return Decision(kind or "softmax", units, units)


def input_gradient(
    logits_fn: LogitsFn,
    x: Any,
    targets: Any,
    score: ScoreName = "log_prob",
    kind: HeadKind = "softmax",
) -> tf.Tensor:
    """Compute `d s_b / d x_b` with one forward and one backward pass.

    An outer tape that watches the weights can differentiate the result again. Tiny
    gradients survive layers in float16.

    Args:
        logits_fn: Maps inputs to logits `(B, C)`, each example by itself (inference
            mode); one call.
        x: Data `(B, *S)`; integers are taken as float32.
        targets: Float `(B, C)` from `class_targets` or `predicted_targets`, or a
            function that makes them from the logits (it saves a forward pass).
        score: `"log_prob"`, `"margin"` or `"logit"`, see `class_score`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        Tensor shaped like `x`, of its float dtype.

    Raises:
        ValueError: If the score is unknown or the logits do not depend on `x`.

    Reference:
        arXiv 1312.6034 (`logit`), arXiv 1711.09404 (`log_prob`).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.base import input_gradient
        >>> input_gradient(
        ...     lambda x: 3.0 * x, tf.ones((1, 2)), tf.constant([[0.0, 1.0]]), "logit"
        ... ).numpy().tolist()
        [[0.0, 3.0]]
    """
    x = as_float(x)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        logits = tf.cast(logits_fn(x), tf.float32)
    chosen = tf.stop_gradient(targets(logits) if callable(targets) else targets)
    pull = unit_pull(logits, chosen, score, kind)
    gradient = tape.gradient(logits, x, pull.rows)
    if gradient is None:
        raise ValueError(
            "Got logits that do not depend on the input through differentiable "
            "operations, expected a differentiable model. Remove casts to integers, "
            "lookups and NumPy code between the input and the logits."
        )
    return pull.scaled(gradient)


class Explainer(BatchedExplainer):
    """Explain any number of examples, `f(x, targets=None) -> maps`.

    It follows the model's weights, and traces once whatever the number of examples.
    Made by `keras_jsigr.saliency.explainer`.

    Attributes:
        method: The method, with all that it found out about the model filled in, such
            as the layer that Grad-CAM looks at.

    Args:
        method: The method.
        core: What it computes, see `BatchedExplainer`.
        batch_size: Examples per compiled call, at least 1.
        classes: Of the model, to check class indices against; `None` checks nothing.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explainer
        >>> explainer(lambda x: x, np.ones((1, 2)), method="smoothgrad").method.samples
        50
    """

    def __init__(
        self,
        method: SaliencyMethod,
        core: Core,
        batch_size: int = 128,
        classes: int | None = None,
    ) -> None:
        super().__init__(core, batch_size, classes)
        self.method = method


TargetsFn = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True, kw_only=True)
class SaliencyMethod(ABC):
    """A way to explain a decision: settings, checked when it is made.

    Args:
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind: HeadKind | None = None
    layout: Layout | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        arguments.choice("kind", self.kind, (None, *get_args(HeadKind)))

    @property
    def known_kind(self) -> HeadKind:
        """The kind that the maps are of: `explainer` asks the model for it."""
        return self.kind or "softmax"

    @abstractmethod
    def core(self, model: Any, probe: Any) -> Core:
        """Return the traceable function of `(x, y)` that computes the maps.

        Args:
            model: A Keras classifier, a hardened model or a callable.
            probe: A batch of float inputs, at least one.
        """

    def explainer(self, model: Any, probe: Any, batch_size: int = 128) -> Explainer:
        """Compile the method for a model.

        Args:
            model: A Keras classifier, a hardened model or a callable.
            probe: A batch of inputs, at least one.
            batch_size: Examples per compiled call.

        Returns:
            The reusable function.
        """
        probe = as_float(probe)
        method, classes = self.fitted(model, probe)
        return Explainer(method, method.core(model, probe), batch_size, classes)

    def fitted(self, model: Any, probe: Any) -> tuple[Self, int]:
        """Fill in what the decision of a model makes of the settings.

        One unit is a decision between two classes, and its `"logit"` their margin.

        Args:
            model: A Keras classifier, a hardened model or a callable.
            probe: A batch of float inputs, at least one.

        Returns:
            The method with these settings, and the number of classes.
        """
        decision = decision_of(model, probe, self.kind)
        found: dict[str, Any] = {"kind": decision.kind}
        named = getattr(self, "score", "")
        if decision.score(named) != named:
            found["score"] = decision.score(named)
        return replace(self, **found), decision.classes


def targets_of(y: tf.Tensor | None, kind: HeadKind) -> TargetsFn:
    """Return the function from logits to the targets that are to be explained."""
    if y is None:
        return lambda logits: predicted_targets(logits, kind)
    return lambda logits: class_targets(y, logits)


def squared_logits(logits: Any, perturbed: Any) -> tf.Tensor:
    """Compute `1/2 ||z - z'||^2`, which needs no class.

    Args:
        logits: Float `(B, C)` at the example.
        perturbed: Float `(B, C)` at the perturbed example.

    Returns:
        Float32 `(B,)`, non-negative, unbounded, without gradient.

    Reference:
        arXiv 1711.00138, equation 2.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.base import squared_logits
        >>> squared_logits(tf.constant([[3.0, 0.0]]), tf.zeros((1, 2))).numpy().tolist()
        [4.5]
    """
    change = tf.cast(logits, tf.float32) - tf.cast(perturbed, tf.float32)
    return tf.stop_gradient(0.5 * tf.reduce_sum(tf.square(change), axis=-1))


def probability_drop(
    logits: Any, perturbed: Any, targets: Any, kind: HeadKind = "softmax"
) -> tf.Tensor:
    """Compute `max(0, p_y(x) - p_y(x'))`.

    With independent classes (`kind="sigmoid"`, several columns) `p_y` is the mean over
    the classes of the probability of the state that the targets name.

    Args:
        logits: Float `(B, C)` at the example; one column `z` stands for `(0, z)`.
        perturbed: Float `(B, C)` at the perturbed example.
        targets: Float `(B, C)` from `class_targets` or `predicted_targets`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        Float32 `(B,)` in [0, 1], without gradient.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.base import probability_drop
        >>> drop = probability_drop([[50.0, 0.0]], [[0.0, 0.0]], [[1.0, 0.0]])
        >>> drop.numpy().tolist()
        [0.5]
    """
    before = target_probability(logits, targets, kind)
    after = target_probability(perturbed, targets, kind)
    return tf.stop_gradient(tf.maximum(before - after, 0.0))


def target_probability(
    logits: Any, targets: Any, kind: HeadKind = "softmax"
) -> tf.Tensor:
    """Compute `p_y`, the probability of the target class.

    With independent classes (`kind="sigmoid"`, several columns) it is the mean over
    the classes of the probability of the state that the targets name.

    Args:
        logits: Float `(B, C)`; one column `z` stands for `(0, z)`.
        targets: Float `(B, C)` from `class_targets` or `predicted_targets`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        Float32 `(B,)` in [0, 1].

    Example:
        >>> from keras_jsigr.saliency.base import target_probability
        >>> target_probability([[0.0, 0.0]], [[1.0, 0.0]]).numpy().tolist()
        [0.5]
    """
    z, t = tf.cast(logits, tf.float32), tf.cast(targets, tf.float32)
    if kind == "sigmoid" or z.shape[-1] == 1:
        per_class = t * tf.sigmoid(z) + (1.0 - t) * tf.sigmoid(-z)
        return tf.reduce_mean(per_class, axis=-1)
    return tf.reduce_sum(t * tf.nn.softmax(z), axis=-1)


def sarfa(logits: Any, perturbed: Any, targets: Any) -> tf.Tensor:
    """Compute the specific and relevant change, `S = 2 K dp / (K + dp)`, or 0.

    `dp = p_c(x) - p_c(x')` for the target class (S = 0 unless dp > 0), and
    `K = 1 / (1 + KL(P || P'))` with P the distribution over the other classes: a
    perturbation counts if it lowers the target and leaves the others' order alone.

    Args:
        logits: Float `(B, C)` at the example; one column `z` stands for `(0, z)`.
        perturbed: Float `(B, C)` at the perturbed example.
        targets: Float `(B, C)`; the largest column is the target class.

    Returns:
        Float32 `(B,)` in [0, 1], without gradient.

    Reference:
        arXiv 1912.12191, with the divergence as in the authors' code; the text beneath
        its equation 2 is said to have it the other way round, `KL(P' || P)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.base import sarfa
        >>> sarfa([[0.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]]).numpy()
        array([0.], dtype=float32)
    """
    drop = probability_drop(logits, perturbed, targets)
    z, other = tf.cast(logits, tf.float32), tf.cast(perturbed, tf.float32)
    if z.shape[-1] == 1:
        divergence = tf.zeros_like(drop)  # One other class: nothing can change in it.
    else:
        target = tf.one_hot(
            tf.argmax(targets, -1), z.shape[-1], True, False, dtype=bool
        )
        low = tf.fill(tf.shape(z), -1e30)
        p = tf.nn.log_softmax(tf.where(target, low, z))
        q = tf.nn.log_softmax(tf.where(target, low, other))
        terms = tf.where(target, tf.zeros_like(z), tf.exp(p) * (p - q))
        divergence = tf.maximum(tf.reduce_sum(terms, axis=-1), 0.0)
    same = 1.0 / (1.0 + divergence)
    return tf.stop_gradient(tf.math.divide_no_nan(2.0 * same * drop, same + drop))
