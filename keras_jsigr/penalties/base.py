"""What a penalty is, and what it is computed from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.scores import HeadKind, ScoreName, class_score, unit_pull

ForwardFn = Callable[[list[Any]], Any]
# Gradients in float16 are often below 6e-8, its smallest number: cotangents are
# multiplied by a power of two, and the gradients divided by it in float32.
FLOAT16_PRESCALE = 256.0


@dataclass(frozen=True)
class PenaltyBatch:
    """The data of one training step that penalties may use beside the network.

    Attributes:
        targets: Float32 `(B, C)`, one-hot or multi-label rows.
        kind: Whether classes exclude each other (`"softmax"`) or not (`"sigmoid"`).
        maps: The perturbation map of every regularized input, float32
            `(B, *map_shape)`; empty if no penalty of the model needs a map.
        seed: Int32 `(2,)`, new for every step.
        hits: Float32 `(B,)`, whether a cached map was found, or `None`.
        weights: The present weights by the names of their variables.
    """

    targets: Any
    kind: HeadKind
    maps: list[Any]
    seed: Any
    hits: Any = None
    weights: dict[str, Any] = field(default_factory=dict)

    def score(self, logits: Any, name: ScoreName = "log_prob") -> Any:
        """Return the class score of logits `(B, C)`, float32 `(B,)`."""
        return class_score(logits, self.targets, name, self.kind)


@dataclass(frozen=True)
class Linearization:
    """The network at one batch of inputs, seen as `z + J dx`.

    Attributes:
        inputs: The regularized inputs, float, each `(B, *S)`.
        logits: The recorded logits `(B, C)`, in training mode.
        tape: The tape that watched exactly `inputs`; persistent if several products
            are asked for; `None` if no penalty of the model needs gradients.
        unit: Width of the input range, or one for every input, each a number or one
            per entry of the last axis: gradients are per unit.
        forward: Function from the regularized inputs to logits in inference mode,
            without side effects; `None` outside of a training step.
        forward_matches_logits: Whether `forward(inputs)` is `logits`: a model without
            layers such as dropout.
    """

    inputs: list[Any]
    logits: Any
    tape: tf.GradientTape | None
    unit: Any = 1.0
    forward: ForwardFn | None = None
    forward_matches_logits: bool = False
    _memo: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def shared(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return `compute()`, computed once per step for each key."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]

    def vjp(self, cotangent: Any) -> list[Any]:
        """Compute `v^T J` for every example.

        Args:
            cotangent: Float32 `(B, C)`, one `v` per example.

        Returns:
            For every regularized input a float32 tensor in the input's shape.

        Example:
            >>> import tensorflow as tf
            >>> from keras_jsigr.penalties import Linearization
            >>> x = tf.ones((1, 2))
            >>> with tf.GradientTape(watch_accessed_variables=False) as tape:
            ...     tape.watch(x)
            ...     z = x * tf.constant([2.0, 3.0])
            >>> Linearization([x], z, tape).vjp(tf.ones((1, 2)))[0].numpy().tolist()
            [[2.0, 3.0]]
        """
        if self.tape is None:
            raise ValueError(
                "The forward pass was not recorded: got a product asked for by "
                "penalties with needs_gradients=False. Set needs_gradients=True."
            )
        scale = FLOAT16_PRESCALE if self.logits.dtype == tf.float16 else 1.0
        gradients = self.tape.gradient(
            self.logits,
            self.inputs,
            output_gradients=tf.cast(cotangent * scale, self.logits.dtype),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return [
            tf.cast(tf.convert_to_tensor(g), tf.float32) * (unit / scale)
            for g, unit in zip(gradients, units(self.unit, gradients), strict=True)
        ]

    def score_gradient(self, batch: PenaltyBatch, score: ScoreName = "log_prob") -> list[Any]:
        """Compute `(ds/dz)^T J` of the class score, once per step, as `vjp` returns it.

        Args:
            batch: Targets of the step.
            score: `"log_prob"`, `"margin"` or `"logit"`.
        """

        def compute() -> list[Any]:
            logits = tf.cast(self.logits, tf.float32)
            pull = unit_pull(logits, batch.targets, score, batch.kind)
            return [pull.scaled(gradient) for gradient in self.vjp(pull.rows)]

        found: list[Any] = self.shared(("score_gradient", score), compute)
        return found

    def inference_logits(self) -> Any:
        """Return the logits of the inputs in inference mode, once per step."""
        if self.forward_matches_logits or self.forward is None:
            return self.logits
        forward, inputs = self.forward, self.inputs
        return self.shared("inference_logits", lambda: forward(inputs))


def units(unit: Any, inputs: list[Any]) -> list[Any]:
    """Return the unit of every input, a number or a vector for its last axis."""
    given = unit if isinstance(unit, list) else [unit] * len(inputs)
    return [np.float32(each) if np.ndim(each) else each for each in given]


class Penalty(ABC):
    """A term of the training loss that looks at how the logits depend on the inputs.

    A hardened model adds `weight * mean(penalty(...))` to the loss. The weight is the
    variable `model.<name>_weight`; the mean is logged as `<name>_penalty`. Pass yours
    by `JSIGRConfig(penalties=(...,))`, and register its class to load trained models.

    Attributes:
        needs_gradients: Whether it asks the linearization for products such as `vjp`.
        needs_map: Whether it reads `batch.maps`.
        needs_whole_map: Whether an unbiased estimate of the map is not enough.
        weighs_itself: Whether its values hold `batch.weights` already.

    Args:
        weight: Weight of the term when training starts, >= 0.
        name: An identifier, different for each penalty of a model.

    Example:
        >>> import keras, tensorflow as tf, keras_jsigr as kj
        >>> @keras.saving.register_keras_serializable("my_package")
        ... class MarginGradient(kj.penalties.Penalty):
        ...     def __init__(self, weight=0.1, name="margin_gradient"):
        ...         super().__init__(weight, name)
        ...
        ...     def __call__(self, linearization, batch):
        ...         gradients = linearization.score_gradient(batch, "margin")
        ...         return 0.5 * kj.penalties.per_example_sum([g**2 for g in gradients])
        >>> config = kj.JSIGRConfig(penalties=(MarginGradient(0.05),))
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> [penalty.name for penalty in kj.harden(net, 0.1, config).penalties]
        ['jacobian', 'selective', 'margin_gradient']
    """

    needs_gradients: bool = True
    needs_map: bool = False
    needs_whole_map: bool = False
    weighs_itself: bool = False

    def __init__(self, weight: float, name: str) -> None:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(
                f"A penalty is named by an identifier: got {name!r}, expected a string "
                "such as 'input_gradient'. It names the variable and the log."
            )
        advice = "A weight of 0 switches the term off."
        self.name = name
        self.weight = arguments.number("weight", weight, minimum=0.0, advice=advice)

    @property
    def needs_layout(self) -> bool:
        """Whether it takes the last axis of an input for its channels."""
        return self.needs_map

    @abstractmethod
    def __call__(self, linearization: Linearization, batch: PenaltyBatch) -> Any:
        """Compute the penalty of each example, float32 `(B,)`.

        Args:
            linearization: The recorded forward pass of the step.
            batch: Targets, maps and seed of the step.
        """

    def products(self, classes: int) -> dict[Hashable, int]:
        """Count its reverse-mode products by shared keys; by default several."""
        return {self.name: 2}

    def weights(self) -> dict[str, float]:
        """Return the weights that become variables of the model, by their names."""
        return {f"{self.name}_weight": self.weight}

    def weighted(self, mean: Any, weights: dict[str, Any]) -> Any:
        """Return the term of the loss: the weight times the mean over the batch."""
        return mean if self.weighs_itself else weights[f"{self.name}_weight"] * mean

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, JSON-ready."""
        return {"weight": self.weight, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Penalty:
        """Make a penalty from what `get_config` returned."""
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Penalty) or type(other) is not type(self):
            return NotImplemented
        return self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash((type(self), self.name))

    def __repr__(self) -> str:
        given = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({given})"


def per_example_sum(values: list[Any], weights: list[Any] | None = None) -> Any:
    """Sum over all axes but the batch and over the inputs: `sum_i w_bi a_bi`.

    Args:
        values: One tensor `(B, *S)` per input.
        weights: `None`, or one tensor per input that broadcasts against it.

    Returns:
        A tensor `(B,)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties import per_example_sum
        >>> per_example_sum([tf.ones((2, 3))]).numpy().tolist()
        [3.0, 3.0]
    """
    if weights is not None:
        values = [value * weight for value, weight in zip(values, weights, strict=True)]
    return tf.add_n(
        [tf.reduce_sum(value, axis=list(range(1, value.shape.rank))) for value in values]
    )


def safe_sqrt(x: Any) -> Any:
    """Compute `sqrt(x)` with derivative zero, not infinity, at `x = 0`."""
    positive = x > 0
    return tf.where(positive, tf.sqrt(tf.where(positive, x, tf.ones_like(x))), 0.0)
