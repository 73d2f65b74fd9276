"""Does the loss fit the head? Keras lets a mismatch pass; robustness does not."""

from __future__ import annotations

from typing import Any

import keras

from keras_jsigr.core.heads import Head
from keras_jsigr.core.keras_private import compiled_losses

_REGRESSION = (
    keras.losses.MeanSquaredError,
    keras.losses.MeanAbsoluteError,
    keras.losses.MeanAbsolutePercentageError,
    keras.losses.MeanSquaredLogarithmicError,
    keras.losses.Huber,
    keras.losses.LogCosh,
)
# What losses can be reduced to that is no mean over the batch.
_NO_MEANS = ("sum", "none", None)


def resolved_losses(model: keras.Model) -> list[Any]:
    """List the losses of a compiled model, names turned into objects.

    Args:
        model: A compiled Keras model.

    Returns:
        `keras.losses.Loss` objects and the user's own functions.

    Raises:
        ValueError: If the model has no loss.

    Example:
        >>> import keras
        >>> from keras_jsigr.checks.compile_check import resolved_losses
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> net.compile(loss="mse")
        >>> callable(resolved_losses(net)[0])
        True
    """
    losses = compiled_losses(model)
    if not losses:
        raise ValueError(
            f"`{model.name}` has no loss: got `compile` without `loss`, expected a "
            "classification loss such as 'sparse_categorical_crossentropy'."
        )
    return [keras.losses.get(loss) for loss in losses]


def check_loss(model: keras.Model, head: Head) -> None:
    """Refuse a loss that reads the outputs as something they are not.

    Args:
        model: A compiled Keras model.
        head: The head of the classifier.

    Raises:
        ValueError: If a loss expects probabilities and the model returns logits, or
            the reverse, if the loss is a regression loss, or if it is not averaged
            over the batch as the penalties are.

    Example:
        >>> import keras
        >>> from keras_jsigr.checks.compile_check import check_loss
        >>> from keras_jsigr.core.heads import Head
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> net.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True))
        >>> check_loss(net, Head("linear"))
    """
    for loss in resolved_losses(model):
        name = getattr(loss, "name", None) or getattr(loss, "__name__", str(loss))
        if isinstance(loss, _REGRESSION) or loss in _REGRESSION_FUNCTIONS:
            raise ValueError(
                f"J-SIGR hardens classifiers: got the regression loss '{name}', "
                "expected a cross entropy over classes."
            )
        reduction = getattr(loss, "reduction", "sum_over_batch_size")
        if reduction in _NO_MEANS:
            raise ValueError(
                f"Penalties are means over the batch: got '{name}' with reduction="
                f"{reduction!r}, beside which their weights mean something else at "
                "every batch size, expected a mean. Leave reduction at its default, "
                "and multiply the learning rate by the batch size if it was for that."
            )
        from_logits = _from_logits(loss)
        if head.kind == "linear" and _function(loss) in _ALWAYS_PROBABILITIES:
            raise ValueError(
                f"Loss and head disagree: got '{name}', which reads probabilities, on "
                "a model that returns logits. Give the last layer "
                "activation='softmax' (or 'sigmoid'), or use a cross entropy with "
                "from_logits=True."
            )
        if from_logits is None or from_logits == (head.kind == "linear"):
            continue
        if head.kind == "linear":
            raise ValueError(
                f"Loss and head disagree: got '{name}' with from_logits=False on a "
                "model that returns logits. Use from_logits=True in the loss, or give "
                "the last layer activation='softmax' (or 'sigmoid')."
            )
        raise ValueError(
            f"Loss and head disagree: got '{name}' with from_logits=True on a model "
            f"that ends in a {head.kind}. Use from_logits=False in the loss, or "
            "remove the activation of the last layer."
        )


_REGRESSION_FUNCTIONS = tuple(
    keras.losses.get(name)
    for name in ("mse", "mae", "mape", "msle", "huber", "log_cosh")
)
# No argument of theirs says so: of logits they make NaN, or a number without meaning.
_ALWAYS_PROBABILITIES = (
    keras.losses.categorical_generalized_cross_entropy,
    keras.losses.dice,
    keras.losses.kl_divergence,
    keras.losses.poisson,
    keras.losses.tversky,
)
_PROBABILITY_FUNCTIONS = tuple(
    keras.losses.get(name)
    for name in (
        "categorical_crossentropy",
        "sparse_categorical_crossentropy",
        "binary_crossentropy",
        "categorical_focal_crossentropy",
        "binary_focal_crossentropy",
    )
)


def _from_logits(loss: Any) -> bool | None:
    """Tell what the loss expects; `None` if it does not say."""
    if isinstance(loss, keras.losses.Loss):
        value = loss.get_config().get("from_logits")
        return None if value is None else bool(value)
    return False if loss in _PROBABILITY_FUNCTIONS else None


def _function(loss: Any) -> Any:
    """Return the function that a loss of Keras' own wraps, else the loss itself."""
    return getattr(loss, "fn", loss)


_LIKELIHOODS = (
    keras.losses.CategoricalCrossentropy,
    keras.losses.SparseCategoricalCrossentropy,
)
_LIKELIHOOD_FUNCTIONS = tuple(
    keras.losses.get(name)
    for name in ("categorical_crossentropy", "sparse_categorical_crossentropy")
)


def is_cross_entropy(model: keras.Model) -> bool:
    """Tell whether the loss is the mean of `-log p` of the true class.

    Args:
        model: A compiled Keras model.

    Returns:
        `False` for independent classes, focal losses and losses of one's own.

    Example:
        >>> import keras
        >>> from keras_jsigr.checks.compile_check import is_cross_entropy
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> net.compile(loss="sparse_categorical_crossentropy")
        >>> is_cross_entropy(net)
        True
    """
    return all(
        isinstance(loss, _LIKELIHOODS) or loss in _LIKELIHOOD_FUNCTIONS
        for loss in resolved_losses(model)
    )
