"""Checks before training: the adversary, the layers, the loss and the data."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from keras_jsigr.config import JSIGRConfig
from keras_jsigr.core.heads import Head, kind_of_losses
from keras_jsigr.core.keras_compat import all_layers, compiled_losses, leaf_layers
from keras_jsigr.training.input_scales import Scales


def adds_activity_losses(base: keras.Model) -> bool:
    """Tell whether a layer has an activity regularizer."""
    return any(
        getattr(layer, "activity_regularizer", None) is not None for layer in leaf_layers(base)
    )


def check_activity_losses(base: keras.Model) -> None:
    """Refuse a divided batch where layers add losses of their activations."""
    regularized = sum(v.regularizer is not None for v in base.trainable_variables)
    if len(base.losses) > regularized:
        raise ValueError(
            f"Layers of `{base.name}` add losses of their activations: got a batch in two parts, "
            "of which Keras would keep the losses of one. Use `config.replace(batch_share=1.0)`."
        )


def check_adversary(adversary: Any, input_range: Scales, regularized: list[int]) -> None:
    """Refuse an adversary that cannot perturb the inputs a model trains on."""
    if isinstance(adversary, type):
        raise TypeError(
            f"Got the class {adversary.__name__} as adversary, expected an attack made "
            f"of it, such as {adversary.__name__}(epsilon=0.1)."
        )
    if not callable(getattr(adversary, "perturb", None)):
        raise TypeError(
            f"Got {type(adversary).__name__} as adversary, expected an attack with "
            "`perturb`, such as keras_jsigr.attacks.FGSM(epsilon=0.1)."
        )
    if len(regularized) != 1:
        raise ValueError(
            f"An adversary perturbs one input: got {len(regularized)} "
            "regularized inputs. Choose one with `harden(..., inputs=[name])`."
        )
    if isinstance(input_range, dict):
        raise ValueError(
            "An adversary has one radius for all columns: got an input_range for each "
            "column, expected one pair. Train at random points instead, with "
            "start_radius, or scale the columns before the model."
        )
    given = getattr(adversary, "input_range", None)
    # An attack clips to its range: another one would leave the ball.
    if isinstance(given, tuple | list) and tuple(given) != input_range:
        raise ValueError(
            f"The adversary belongs to inputs of another range: got input_range={tuple(given)}, "
            f"expected {input_range} as in the training. Pass `input_range={input_range}` to the "
            "attack, or the range of the inputs to `harden`."
        )
    if getattr(adversary, "targeted", False) is True:
        raise ValueError(
            "A targeted adversary makes the model more certain of the labels it trains on: got "
            "targeted=True, expected False. Make it with `targeted=False`."
        )


def check_dense(model: keras.Model) -> None:
    """Refuse sparse inputs: every entry has a gradient, zeros too."""
    tensors = getattr(model, "inputs", None) or []
    sparse = [tensor.name for tensor in tensors if getattr(tensor, "sparse", False)]
    if sparse:
        raise ValueError(
            f"Inputs are regularized entry by entry: got the sparse inputs {sparse}, "
            "expected dense ones. Build the model without sparse=True and pass "
            "x.toarray(), a batch at a time where memory is short."
        )


def check_rematerialized(model: keras.Model, config: JSIGRConfig) -> None:
    """Refuse layers that are computed again in the backward pass."""

    def is_active(layer: Any) -> bool:
        scope: Any = getattr(layer, "_remat_mode", None)
        mode = scope and scope.mode
        if mode == "activations":  # right once, but not twice
            once = config.estimator == "finite_difference"
            return not once and getattr(layer, "activation", None) is not None
        return mode is not None and (mode != "list_of_layers" or layer.name in scope.layer_names)

    found = [layer.name for layer in all_layers(model) if is_active(layer)]
    if found:
        raise ValueError(
            f"TensorFlow cannot differentiate rematerialized layers twice: got {found}, made "
            "within a `keras.RematScope`. Build the model outside of it; to save memory, take a "
            "smaller batch and an optimizer with gradient_accumulation_steps."
        )


def check_channels(model: keras.Model, config: JSIGRConfig) -> None:
    """Refuse layers with channels first, where maps or patches take them for last."""
    first = [
        layer.name
        for layer in leaf_layers(model)
        if getattr(layer, "data_format", None) == "channels_first"
    ]
    reads = any(penalty.needs_layout for penalty in config.build_penalties())
    patches = config.start_radius > 0 and max(config.start_patch_sizes) > 1
    if first and (reads or patches):
        raise ValueError(
            f"Maps and patches take the last axis for the channels: got channels first "
            f"in {first}, expected channels last. Build the layers so, and put a "
            "`keras.layers.Permute((2, 3, 1))` before them."
        )


def check_start_radius(config: JSIGRConfig, input_range: Scales) -> None:
    """Refuse start points farther away than the inputs are wide."""
    if isinstance(input_range, dict):  # in units of each column
        input_range = (0.0, 1.0)
    width = input_range[1] - input_range[0]
    if config.start_radius > width:
        raise ValueError(
            f"`start_radius` is wider than the inputs: got {config.start_radius:g}, "
            f"expected at most {width:g}, the width of input_range={input_range}. Both "
            "are in the units of the inputs."
        )


def check_precision(model: keras.Model, config: JSIGRConfig) -> None:
    """Refuse differences between logits in half precision: they are rounding."""
    half = model.compute_dtype in ("float16", "bfloat16")
    if config.estimator == "finite_difference" and half:
        raise ValueError(
            "Differences between logits in half precision measure their rounding: "
            f"got estimator='finite_difference' and a model that computes in "
            f"{model.compute_dtype}, expected float32. Use estimator='jvp'."
        )


def warn_of_own_steps(model: keras.Model) -> None:
    """Warn of methods of the model's class that its hardened model does not call."""
    own = [
        name
        for name in ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics")
        if getattr(type(model), name) is not getattr(keras.Model, name)
    ]
    if own:
        warnings.warn(
            f"`{model.name}` has a `{'` and a `'.join(own)}` of its own, which the hardened model "
            "does not call: its steps are its own, on the loss and metrics given to `compile`. "
            "Move what they add into those, or into a layer that calls `add_loss`.",
            stacklevel=3,
        )


# What losses can be reduced to that is no mean over the batch.
_NO_MEANS = ("sum", "none", None)


def resolved_losses(model: keras.Model) -> list[Any]:
    """List the losses of a compiled model, names turned into objects."""
    losses = compiled_losses(model)
    if not losses:
        raise ValueError(
            f"`{model.name}` has no loss: got `compile` without `loss`, expected a "
            "classification loss such as 'sparse_categorical_crossentropy'."
        )
    return [keras.losses.get(loss) for loss in losses]


def check_loss(model: keras.Model, head: Head) -> None:
    """Refuse a loss that reads the outputs as something they are not."""
    said, told = getattr(model, "multi_label", None), kind_of_losses(model)
    units = getattr(model, "classes", 1)
    if None not in (said, told) and units > 1 and said != (told == "sigmoid"):
        which = "independent" if told == "sigmoid" else "exclusive"
        raise ValueError(
            f"Loss and multi_label disagree: got multi_label={said} and a loss of "
            f"{which} classes. Leave multi_label out, or change the loss."
        )
    for loss in resolved_losses(model):
        name = getattr(loss, "name", None) or getattr(loss, "__name__", str(loss))
        if _function(loss) in _REGRESSION_FUNCTIONS:
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
        if from_logits is None or from_logits == (head.kind == "linear"):
            continue
        if head.kind == "linear":
            raise ValueError(
                f"Loss and head disagree: got '{name}', which reads probabilities, on a model that "
                "returns logits. Pass from_logits=True to a cross entropy, or give the last layer "
                "activation='softmax' (or 'sigmoid')."
            )
        raise ValueError(
            f"Loss and head disagree: got '{name}' with from_logits=True on a model "
            f"that ends in a {head.kind}. Use from_logits=False in the loss, or "
            "remove the activation of the last layer."
        )


_REGRESSION_FUNCTIONS = tuple(
    keras.losses.get(name) for name in ("mse", "mae", "mape", "msle", "huber", "log_cosh")
)
_LIKELIHOOD_FUNCTIONS = tuple(
    keras.losses.get(name)
    for name in ("categorical_crossentropy", "sparse_categorical_crossentropy")
)
# Without an argument that says otherwise: of logits they make NaN, or a number without meaning.
_PROBABILITY_FUNCTIONS = (
    *_LIKELIHOOD_FUNCTIONS,
    keras.losses.binary_crossentropy,
    keras.losses.binary_focal_crossentropy,
    keras.losses.categorical_focal_crossentropy,
    keras.losses.categorical_generalized_cross_entropy,
    keras.losses.dice,
    keras.losses.kl_divergence,
    keras.losses.poisson,
    keras.losses.tversky,
)


def _from_logits(loss: Any) -> bool | None:
    given = loss.get_config().get("from_logits") if isinstance(loss, keras.losses.Loss) else None
    if given is not None:
        return bool(given)
    return False if _function(loss) in _PROBABILITY_FUNCTIONS else None


def _function(loss: Any) -> Any:
    """Return the function that a loss of Keras' own wraps, else the loss itself."""
    return getattr(loss, "fn", loss)


def is_cross_entropy(model: keras.Model) -> bool:
    """Tell whether the loss is the mean of `-log p` of the true class."""
    losses = map(_function, resolved_losses(model))
    return all(loss in _LIKELIHOOD_FUNCTIONS for loss in losses)


def check_label_kind(head: Head, classes: int, multi_label: bool | None) -> None:
    """Refuse what is said of the classes where the head says otherwise."""
    if multi_label not in (None, True, False):
        raise TypeError(
            f"`multi_label` is no switch: got {multi_label!r}, expected True for "
            "independent classes, False for exclusive ones, or None."
        )
    if multi_label is None or classes == 1 or head.kind == "linear":
        return
    if multi_label != (head.kind == "sigmoid"):
        which = "independent" if head.kind == "sigmoid" else "exclusive"
        raise ValueError(
            f"Head and multi_label disagree: got multi_label={multi_label} on a model "
            f"that ends in a {head.kind}, whose classes are {which}. Leave multi_label "
            "out, or change the last activation."
        )


def is_hinge(model: keras.Model) -> bool:
    """Tell whether labels may be -1 and 1."""
    hinges = (keras.losses.hinge, keras.losses.squared_hinge)
    return any(_function(loss) in hinges for loss in resolved_losses(model))


def check_head(head: Head, classes: int) -> None:
    """Refuse a head with an activity regularizer, and a softmax of one unit."""
    if head.kind == "softmax" and classes == 1:
        raise ValueError(
            "The softmax of one unit is always 1: got one output, expected two classes "
            "or more. Use activation='sigmoid' for a single unit."
        )
    if head.layer is not None and head.layer.activity_regularizer is not None:
        kind = type(head.layer.activity_regularizer).__name__
        raise ValueError(
            f"The head `{head.layer.name}` regularizes its probabilities: got "
            f"activity_regularizer={kind}, expected None. Training sees the logits "
            "there: add the term to the loss given to `compile`."
        )
