"""Loss and head must agree; every mismatch speaks before training."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_jsigr import harden
from keras_jsigr.checks.compile_check import (
    check_loss,
    is_cross_entropy,
    resolved_losses,
)
from keras_jsigr.core.heads import Head

LINEAR, SOFTMAX, SIGMOID = Head("linear"), Head("softmax"), Head("sigmoid")
losses = keras.losses


def compiled(loss, classes=3):
    model = keras.Sequential([layers.Input((2,)), layers.Dense(classes)])
    model.compile(loss=loss)
    return model


NAMES = [
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "binary_crossentropy",
    "categorical_focal_crossentropy",
    "binary_focal_crossentropy",
]
CLASSES = [
    losses.SparseCategoricalCrossentropy,
    losses.CategoricalCrossentropy,
    losses.BinaryCrossentropy,
    losses.CategoricalFocalCrossentropy,
    losses.BinaryFocalCrossentropy,
]


@pytest.mark.parametrize("loss", [*NAMES, *(kind() for kind in CLASSES)])
def test_probabilities_wanted_logits_given(loss):
    with pytest.raises(ValueError, match="from_logits=False on a model that returns"):
        check_loss(compiled(loss), LINEAR)
    check_loss(compiled(loss), SOFTMAX)


@pytest.mark.parametrize(
    "loss",
    [
        *("kl_divergence", "poisson", "dice", "tversky"),
        *(losses.KLDivergence(), losses.Poisson(), losses.Dice(), losses.Tversky()),
        losses.CategoricalGeneralizedCrossEntropy(),
        losses.categorical_generalized_cross_entropy,
    ],
)
def test_losses_that_always_read_probabilities(loss):
    with pytest.raises(ValueError, match="which reads probabilities, on a model that"):
        check_loss(compiled(loss), LINEAR)
    check_loss(compiled(loss), SOFTMAX)
    check_loss(compiled(loss), SIGMOID)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("head", [SOFTMAX, SIGMOID], ids=["softmax", "sigmoid"])
def test_logits_wanted_probabilities_given(kind, head):
    with pytest.raises(ValueError, match=f"ends in a {head.kind}"):
        check_loss(compiled(kind(from_logits=True)), head)
    check_loss(compiled(kind(from_logits=True)), LINEAR)


@pytest.mark.parametrize(
    "loss",
    [
        *("mse", "mae", "mape", "msle", "huber", "mean_squared_error", "log_cosh"),
        losses.MeanSquaredError(),
        losses.Huber(),
        losses.LogCosh(),
        losses.mean_absolute_error,
    ],
)
def test_regression_losses(loss):
    with pytest.raises(ValueError, match="regression loss"):
        check_loss(compiled(loss), LINEAR)


@pytest.mark.parametrize("reduction", ["sum", "none", None])
def test_losses_that_are_no_mean(reduction):
    loss = losses.SparseCategoricalCrossentropy(True, reduction=reduction)
    with pytest.raises(ValueError, match="Penalties are means over the batch"):
        check_loss(compiled(loss), LINEAR)


@pytest.mark.parametrize(
    "reduction", ["sum_over_batch_size", "mean", "mean_with_sample_weight"]
)
def test_losses_that_are_a_mean(reduction):
    loss = losses.SparseCategoricalCrossentropy(True, reduction=reduction)
    check_loss(compiled(loss), LINEAR)


def test_no_loss():
    model = keras.Sequential([layers.Input((2,)), layers.Dense(3)])
    model.compile("adam")
    with pytest.raises(ValueError, match="has no loss"):
        check_loss(model, LINEAR)


class Own(losses.Loss):
    def call(self, y, p):
        return keras.ops.mean(p, axis=-1)


def own(y, p):
    return keras.ops.mean(p, axis=-1)


@pytest.mark.parametrize("loss", [own, Own(), losses.CategoricalHinge(), [own]])
@pytest.mark.parametrize("head", [LINEAR, SOFTMAX], ids=["linear", "softmax"])
def test_what_does_not_say_passes(loss, head):
    check_loss(compiled(loss), head)


def test_resolved_losses():
    (loss,) = resolved_losses(compiled("sparse_categorical_crossentropy"))
    assert callable(loss)


@pytest.mark.parametrize("call", ["fit", "train_on_batch"])
def test_the_hardened_model_asks(call):
    robust = harden(compiled("mse"), verbose=0)
    robust.compile("sgd", "sparse_categorical_crossentropy")
    x, y = np.zeros((4, 2), "float32"), np.zeros(4)
    with pytest.raises(ValueError, match="Loss and head disagree"):
        getattr(robust, call)(x, y)


def test_an_uncompiled_model_gets_the_message_of_keras():
    robust = harden(compiled("mse"), verbose=0)
    with pytest.raises(ValueError, match=r"call `compile\(\)`"):
        robust.fit(np.zeros((4, 2), "float32"), np.zeros(4))


@pytest.mark.parametrize("loss", [*NAMES, *(kind() for kind in CLASSES)])
def test_which_losses_are_a_likelihood(loss):
    name = loss if isinstance(loss, str) else loss.name
    assert is_cross_entropy(compiled(loss)) == (name in NAMES[:2])


def test_a_loss_of_ones_own_is_taken_for_no_likelihood():
    assert not is_cross_entropy(compiled(lambda y, z: 0.0 * z))
