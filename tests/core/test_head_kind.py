"""Do the classes exclude each other? Head and loss tell."""

import keras
import pytest
from keras import layers, losses

from keras_jsigr.core.head_kind import head_kind
from keras_jsigr.core.heads import Head
from keras_jsigr.core.ignored_labels import ignored_labels

LINEAR, SOFTMAX, SIGMOID = Head("linear"), Head("softmax"), Head("sigmoid")


def own(y, z):
    return z


def compiled(loss, classes=3):
    model = keras.Sequential([layers.Input((2,)), layers.Dense(classes)])
    model.compile(loss=loss)
    return model


@pytest.mark.parametrize(
    ("loss", "head", "classes", "kind"),
    [
        (losses.BinaryCrossentropy(from_logits=True), LINEAR, 3, "sigmoid"),
        (losses.BinaryFocalCrossentropy(from_logits=True), LINEAR, 3, "sigmoid"),
        (losses.CategoricalCrossentropy(from_logits=True), LINEAR, 3, "softmax"),
        (losses.CategoricalCrossentropy(from_logits=True), LINEAR, 1, "sigmoid"),
        ("binary_crossentropy", SIGMOID, 3, "sigmoid"),
        ("binary_crossentropy", SOFTMAX, 2, "softmax"),
        (own, LINEAR, 3, "softmax"),
    ],
)
def test_head_kind(loss, head, classes, kind):
    assert head_kind(compiled(loss, classes), head, classes) == kind


def test_what_was_never_compiled_says_by_its_head():
    model = keras.Sequential([layers.Input((2,)), layers.Dense(3)])
    assert head_kind(model, LINEAR, 3) == "softmax"
    assert head_kind(model, SIGMOID, 3) == "sigmoid"
    assert ignored_labels(model) == []


def test_ignored_labels_of_all_losses():
    assert ignored_labels(compiled("categorical_crossentropy")) == []
    loss = losses.SparseCategoricalCrossentropy(ignore_class=-1)
    assert ignored_labels(compiled(loss)) == [-1]
