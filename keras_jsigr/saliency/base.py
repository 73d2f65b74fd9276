"""What all saliency methods share: the decision, its gradient, the method, its run."""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self, TypeVar, get_args

import keras
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.batching import BatchedExplainer, Core
from keras_jsigr.core.heads import head_kind, head_of, ignored_labels
from keras_jsigr.core.inputs import as_float
from keras_jsigr.core.logits import LogitsFn, known_input_range, output_units
from keras_jsigr.core.scores import (
    HeadKind,
    ScoreName,
    class_targets,
    predicted_targets,
    unit_pull,
)
from keras_jsigr.saliency.masks import Layout

_Name = TypeVar("_Name", bound=str)

# From logits `(B, C)` to the float targets `(B, C)` to explain.
TargetsFn = Callable[[tf.Tensor], tf.Tensor]


class Decision(NamedTuple):
    """The classes that a model decides between, and the units of its output."""

    kind: HeadKind
    classes: int
    units: int

    def score(self, name: _Name) -> _Name | Literal["margin"]:
        """Return the score to take: with one unit `"logit"` means the margin."""
        return "margin" if self.units == 1 and name == "logit" else name


def decision_of(model: Any, probe: Any, kind: HeadKind | None = None) -> Decision:
    """Find out what a model decides between; `kind` overrides what its head says."""
    units = output_units(model, probe)
    if units == 1:
        return Decision("softmax", 2, 1)
    if kind is None and isinstance(model, keras.Model):
        kind = head_kind(model, head_of(model, probe), units)
    return Decision(kind or "softmax", units, units)


def targets_of(y: tf.Tensor | None, kind: HeadKind) -> TargetsFn:
    """Return the targets of labels, or of the model's own decision without labels."""
    if y is None:
        return lambda logits: predicted_targets(logits, kind)
    return lambda logits: class_targets(y, logits)


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
            mode); called once.
        x: Data `(B, *S)`; integers are taken as float32.
        targets: Float `(B, C)`, such as one-hot rows, or a function that makes them
            from the logits, which saves a forward pass.
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
        >>> from keras_jsigr.saliency import input_gradient
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
    cotangent = unit_pull(logits, chosen, score, kind)
    gradient = tape.gradient(logits, x, cotangent.rows)
    if gradient is None:
        raise ValueError(
            "Got logits that do not depend on the input through differentiable "
            "operations, expected a differentiable model. Remove casts to integers, "
            "lookups and NumPy code between the input and the logits."
        )
    return cotangent.scaled(gradient)


def target_probability(
    logits: Any, targets: Any, kind: HeadKind = "softmax"
) -> tf.Tensor:
    """Compute `p_y`, the probability of the target class.

    With independent classes (`kind="sigmoid"`) it is the mean over the classes of the
    probability of the state, present or absent, that the targets name.

    Args:
        logits: Float `(B, C)`; one column `z` stands for `(0, z)`.
        targets: Float `(B, C)`, such as one-hot rows.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        Float32 `(B,)` in [0, 1].

    Example:
        >>> from keras_jsigr.saliency import target_probability
        >>> target_probability([[0.0, 0.0]], [[1.0, 0.0]]).numpy().tolist()
        [0.5]
    """
    z, t = tf.cast(logits, tf.float32), tf.cast(targets, tf.float32)
    if kind == "sigmoid" or z.shape[-1] == 1:
        per_class = t * tf.sigmoid(z) + (1.0 - t) * tf.sigmoid(-z)
        return tf.reduce_mean(per_class, axis=-1)
    return tf.reduce_sum(t * tf.nn.softmax(z), axis=-1)


class Explainer(BatchedExplainer):
    """Explain any number of examples, `f(x, y=None) -> maps`.

    It reads the model's current weights, and traces once whatever the number of
    examples. Made by `keras_jsigr.saliency.explainer`.

    Attributes:
        method: The method, with all that it found out about the model filled in, such
            as the layer that Grad-CAM looks at.

    Args:
        method: The method.
        core: What it computes, see `BatchedExplainer`.
        batch_size: Examples per compiled call, at least 1.
        classes: Of the model, to check class indices against; `None` checks nothing.
        ignored: Labels of examples that the model's loss leaves out.

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
        ignored: Sequence[int] = (),
    ) -> None:
        super().__init__(core, batch_size, classes, ignored)
        self.method = method


# One argument of a Google docstring, with the lines that continue it.
_ARGUMENT = re.compile(r"^    (\w+):.*\n(?:        .*\n)*", re.MULTILINE)


def _with_inherited_args(cls: type) -> str:
    """Add to a docstring the arguments that only the parents' docstrings explain."""
    doc, own = _doc_and_args(cls)
    more: dict[str, str] = {}
    for parent in cls.__bases__:
        more |= _doc_and_args(parent)[1]
    known = {*own, *cls.__annotations__}
    text = "".join(line for name, line in more.items() if name not in known)
    before = "".join(own.values())
    if before:
        return doc.replace(before, before + text, 1)
    return f"{doc}\nArgs:\n{text}"


def _doc_and_args(cls: type) -> tuple[str, dict[str, str]]:
    doc = inspect.cleandoc(cls.__doc__ or "") + "\n"
    section = re.search(r"(?<=^Args:\n)(?:    .*\n)+", doc, re.MULTILINE)
    found = _ARGUMENT.finditer(section[0]) if section else ()
    return doc, {argument[1]: argument[0] for argument in found}


@dataclass(frozen=True, kw_only=True)
class SaliencyMethod(ABC):
    """A way to explain a decision: settings, checked when it is made.

    A new method is a frozen dataclass of keyword-only settings with `core`; what the
    docstrings of its parents say of their settings is added to its own.

    Args:
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model; for a callable it is
            `"softmax"`.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind: HeadKind | None = None
    layout: Layout | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__doc__ = _with_inherited_args(cls)

    def __post_init__(self) -> None:
        """Check the settings."""
        arguments.choice("kind", self.kind, (None, *get_args(HeadKind)))

    @property
    def known_kind(self) -> HeadKind:
        """The kind of the decision; exclusive classes until a model was asked."""
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
        ignored = ignored_labels(model) if isinstance(model, keras.Model) else ()
        core = method.core(model, probe)
        return Explainer(method, core, batch_size, classes, ignored)

    def fitted(self, model: Any, probe: Any) -> tuple[Self, int]:
        """Fill in the settings that the model decides.

        These are the kind of its classes, the input range of a hardened model where
        none is given, and `"margin"` for the `"logit"` of a single unit.

        Args:
            model: A Keras classifier, a hardened model or a callable.
            probe: A batch of float inputs, at least one.

        Returns:
            The method with these settings, and the number of classes.
        """
        decision = decision_of(model, probe, self.kind)
        found: dict[str, Any] = {"kind": decision.kind}
        score = getattr(self, "score", "")
        if decision.score(score) != score:
            found["score"] = "margin"
        if getattr(self, "input_range", ()) is None:
            found["input_range"] = known_input_range(model) or (0.0, 1.0)
        return replace(self, **found), decision.classes


@dataclass(frozen=True, kw_only=True)
class RangedMethod(SaliencyMethod):
    """A method that has to know the range of the inputs.

    Args:
        input_range: `(low, high)` of the inputs; `None` takes that of a hardened model,
            and (0, 1) for any other.
    """

    input_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.input_range is not None:
            arguments.interval("input_range", self.input_range)

    @property
    def known_range(self) -> tuple[float, float]:
        """The input range; (0, 1) until a model was asked."""
        return self.input_range or (0.0, 1.0)
