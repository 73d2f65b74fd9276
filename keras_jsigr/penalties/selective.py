"""Selective input gradient regularization: flat where the map marks nothing."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import keras
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.random import named_seed
from keras_jsigr.penalties.base import Linearization, PenaltyBatch
from keras_jsigr.penalties.jacobian import (
    JacobianPenalty,
    directional_norm,
    reduce_terms,
)

SelectionName = Literal["hard", "soft", "threshold", "random", "inverted", "all", "none"]
SELECTIONS: tuple[str, ...] = get_args(SelectionName)
# Linear in the map: an unbiased estimate is enough; others need all of it, or none.
LINEAR_SELECTIONS = ("soft", "random", "all", "none")
# 0.55 of 100 entries are 55, though the product is a little more.
_ROUNDING = 1e-6


def selection_weights(
    saliency: Any,
    selection: SelectionName = "soft",
    *,
    quantile: float = 0.5,
    threshold: float | None = None,
    seed: Any = (0, 0),
) -> Any:
    """Turn maps (or unbiased estimates) into `M` as in `JSIGRConfig`; no gradient."""
    arguments.choice("selection", selection, SELECTIONS)
    s = tf.stop_gradient(tf.cast(saliency, tf.float32))
    if selection == "soft":
        return 1.0 - s
    if selection == "all":
        return tf.ones_like(s)
    if selection == "none":
        return tf.zeros_like(s)
    if selection == "hard":
        return _least(s, quantile)
    if selection == "inverted":
        return _least(-s, quantile)
    if selection == "random":
        return _least(tf.random.stateless_uniform(tf.shape(s), seed), quantile)
    level: Any = threshold
    if level is None:
        axes = list(range(1, s.shape.rank))
        mean = tf.reduce_mean(s, axes, keepdims=True)
        variance = tf.reduce_mean(tf.square(s - mean), axes, keepdims=True)
        level = mean + tf.sqrt(variance)
    return tf.cast(s < level, tf.float32)


def _least(s: Any, quantile: float) -> Any:
    """Mark the entries up to the per-example quantile; ties count as below it."""
    if quantile == 0.0:
        return tf.zeros_like(s)
    size: Any = s.shape[1:].num_elements()
    if size is None:  # A model may take images of any sides, one batch after another.
        size = tf.reduce_prod(tf.shape(s)[1:])
        share = quantile * tf.cast(size, tf.float64) - _ROUNDING
        count = tf.maximum(tf.cast(tf.math.ceil(share), tf.int32), 1)
    else:
        count = max(math.ceil(quantile * size - _ROUNDING), 1)
    flat = tf.reshape(s, (tf.shape(s)[0], size))
    level = tf.sort(flat, axis=1)[:, count - 1 : count]
    return tf.reshape(tf.cast(flat <= level, tf.float32), tf.shape(s))


@keras.saving.register_keras_serializable(package="keras_jsigr")
class SelectiveInputGradient(JacobianPenalty):
    """`R_S`: input gradients where the perturbation map says that nothing matters.

    Args:
        weight, name: As in `Penalty`.
        selection, selection_quantile, selection_threshold: As in `JSIGRConfig`.
        **settings: Those of `JacobianNorm`; `target`, whose formulas `JSIGRConfig`
            has, may also be `"score"`, the gradient of the class score itself.

    Raises:
        ValueError: If a setting is unknown or two exclude each other.

    Reference:
        arXiv 2207.13036 (abstract), 1711.09404.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties import *
        >>> x, salient = tf.ones((1, 2)), tf.constant([[1.0, 0.0]])
        >>> with tf.GradientTape() as tape:
        ...     tape.watch(x)
        ...     z = x * tf.constant([2.0, 3.0])
        >>> batch = PenaltyBatch(tf.eye(1, 2), "softmax", [salient], [0, 1])
        >>> penalty = SelectiveInputGradient(1.0, target="score", class_score="margin")
        >>> penalty(Linearization([x], z, tape), batch).numpy().tolist()
        [3.0]
    """

    def __init__(
        self,
        weight: float,
        name: str = "selective",
        *,
        selection: SelectionName = "soft",
        selection_quantile: float = 0.5,
        selection_threshold: float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(weight, name, **settings)
        arguments.choice("selection", selection, SELECTIONS)
        self.selection: SelectionName = selection
        self.selection_quantile = arguments.share("selection_quantile", selection_quantile)
        self.selection_threshold = (
            None
            if selection_threshold is None
            else arguments.share("selection_threshold", selection_threshold)
        )

    @property
    def needs_map(self) -> bool:  # type: ignore[override]
        """Whether the selection looks at a map."""
        return self.selection not in ("all", "none", "random")

    @property
    def needs_whole_map(self) -> bool:  # type: ignore[override]
        """Whether the selection is not linear in the map."""
        return self.selection not in LINEAR_SELECTIONS

    @property
    def needs_layout(self) -> bool:
        """Whether a map, or a random one in its place, has no axis of channels."""
        return self.needs_map or self.selection == "random"

    def __call__(self, linearization: Linearization, batch: PenaltyBatch) -> Any:
        """Compute the penalty of each example."""
        if self.needs_gradients:
            terms = self.terms(linearization, batch)
            selected = self.select(linearization.inputs, batch)
            return reduce_terms(terms, self.norm, selected)
        # The projections before `first` are those of the Jacobian's norm.
        seeds = self.seeds(batch, first=self.num_projections)
        return directional_norm(
            linearization,
            seeds,
            self.estimator,
            self.select(linearization.inputs, batch),
            lambda logits: batch.score(logits, self.class_score)[:, None],
        )

    def select(self, inputs: list[Any], batch: PenaltyBatch) -> list[Any]:
        """Return `M` for every input, in a shape that broadcasts against it."""
        # "all" and "random" look at no map, only at its shape.
        maps = batch.maps if self.needs_map else [_blank_map(x) for x in inputs]
        weights = [
            selection_weights(
                saliency,
                self.selection,
                quantile=self.selection_quantile,
                threshold=self.selection_threshold,
                seed=named_seed(batch.seed, "selection", index),
            )
            for index, saliency in enumerate(maps)
        ]
        return [
            w[..., None] if w.shape.rank < x.shape.rank else w
            for w, x in zip(weights, inputs, strict=True)
        ]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "selection": self.selection,
            "selection_quantile": self.selection_quantile,
            "selection_threshold": self.selection_threshold,
        }


@keras.saving.register_keras_serializable(package="keras_jsigr")
class LinearizedLoss(SelectiveInputGradient):
    """What the loss grows by at the worst point of a ball where the network is linear.

    `log(1 + exp(w R - m)) - log(1 + exp(-m))` with the log odds `m` of the true class
    (of independent classes their sum), `R = sum_i M_i |dm/dx_i|` and the weight `w`, a
    radius: together with the cross entropy it is the loss where each selected pixel
    moves by `w` against the class. It is next to nothing where no such step can fool
    the network, and grows no faster than `w R` where any can.

    Args:
        weight, name: As in `Penalty`; the weight per unit of the input range.
        **settings: Those of `SelectiveInputGradient`: `norm` is `"l1"`, `class_score`
            `"margin"`, and `target` `"score"` or `"mixed"`.

    Reference:
        arXiv 2207.13036 (abstract: linearized robustness).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties import *
        >>> x = tf.zeros((1, 2))
        >>> with tf.GradientTape() as tape:
        ...     tape.watch(x)
        ...     z = x * tf.constant([2.0, 3.0])
        >>> batch = PenaltyBatch(tf.eye(1, 2), "softmax", [], [0, 1])
        >>> growth = LinearizedLoss(0.2, selection="all")(Linearization([x], z, tape), batch)
        >>> bool(abs(growth[0] - (tf.math.softplus(1.0) - tf.math.log(2.0))) < 1e-6)
        True
    """

    weighs_itself = True

    def __init__(self, weight: float, name: str = "selective", **settings: Any) -> None:
        settings = {"target": "score", "class_score": "margin", **settings}
        super().__init__(weight, name, **settings)
        advice = "A linearized loss is of the margin in a ball of the maximum norm."
        wanted = (("norm", ("l1",)), ("class_score", ("margin",)), ("target", ("score", "mixed")))
        for setting, options in wanted:
            arguments.choice(setting, getattr(self, setting), options, advice=advice)

    def __call__(self, linearization: Linearization, batch: PenaltyBatch) -> Any:
        """Compute the growth of the loss of each example."""
        weight = batch.weights.get(f"{self.name}_weight", self.weight)
        growth = tf.cast(weight, tf.float32) * super().__call__(linearization, batch)
        margin = batch.score(linearization.logits, "margin")
        return tf.math.softplus(growth - margin) - tf.math.softplus(-margin)


@keras.saving.register_keras_serializable(package="keras_jsigr")
class DirectionalNorm(SelectiveInputGradient):
    """`JacobianNorm` and `SelectiveInputGradient` along one direction of input space.

    `1/2 sum_i w_i ||J_:i||^2`, weighted by `w = jacobian_weight + selective_weight M`;
    the model has a variable for each of the two.
    """

    weighs_itself = True

    def __init__(
        self,
        jacobian_weight: float,
        selective_weight: float,
        name: str = "fused",
        *,
        estimator: Literal["finite_difference", "jvp"] = "jvp",
        **settings: Any,
    ) -> None:
        arguments.choice("estimator", estimator, ("finite_difference", "jvp"))
        off = "A weight of 0 switches the term off."
        super().__init__(
            arguments.number("selective_weight", selective_weight, minimum=0.0, advice=off),
            name,
            estimator=estimator,
            norm="squared",
            **settings,
        )
        self.jacobian_weight = arguments.number(
            "jacobian_weight", jacobian_weight, minimum=0.0, advice=off
        )

    @property
    def needs_map(self) -> bool:  # type: ignore[override]
        """Whether the selection looks at a map."""
        return self.weight > 0 and super().needs_map

    @property
    def needs_whole_map(self) -> bool:  # type: ignore[override]
        """Whether the selection is not linear in the map."""
        return self.weight > 0 and super().needs_whole_map

    def __call__(self, linearization: Linearization, batch: PenaltyBatch) -> Any:
        """Compute the weighted sum of both terms for each example."""
        inputs = linearization.inputs
        overall = tf.cast(batch.weights["jacobian_weight"], tf.float32)
        density = [tf.fill(tf.shape(x), overall) for x in inputs]
        if self.weight > 0 and self.selection != "none":
            pairs = zip(density, self.select(inputs, batch), strict=True)
            density = [d + batch.weights["selective_weight"] * m for d, m in pairs]
        seeds = self.seeds(batch)
        return directional_norm(linearization, seeds, self.estimator, density)

    def weights(self) -> dict[str, float]:
        """Return both weights."""
        return {
            "jacobian_weight": self.jacobian_weight,
            "selective_weight": self.weight,
        }

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        config = super().get_config()
        left = ("weight", "target", "norm", "projection_std", "class_score")
        return {
            "jacobian_weight": self.jacobian_weight,
            "selective_weight": self.weight,
            **{name: value for name, value in config.items() if name not in left},
        }


def _blank_map(x: Any) -> Any:
    """Return zeros in the shape of the map of an input: channels have no map."""
    return tf.zeros_like(x[..., 0] if x.shape.rank > 2 else x, tf.float32)
