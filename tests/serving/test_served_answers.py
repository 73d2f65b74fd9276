"""The SavedModel answers without keras_jsigr what the model answers here."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.core.scores import class_score, class_targets
from keras_jsigr.model import JSIGRModel
from keras_jsigr.saliency.gradient_map import gradient_map
from keras_jsigr.serving.endpoints import make_endpoints

NAMES = [
    "softmax", "linear", "binary", "multilabel", "plane", "token", "pair",
    "subclassed", "half",
]  # fmt: skip
SIZES = (1, 7)


def near(case: Any, got: np.ndarray, want: Any) -> None:
    # A compiled float16 net rounds in other places than an eager one.
    tolerance = 5e-3 if case.name == "half" else 1e-5
    want = np.asarray(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_decision_and_logits(served: Any, name: str, size: int) -> None:
    case = served[name]
    x = case.inputs(size)
    outputs = np.asarray(case.model.base(x, training=False), "float32")
    if case.model.head.kind == "linear":
        outputs = np.asarray(tf.nn.softmax(outputs))
    for endpoint in ("serving_default", "explain"):
        near(case, case.answers[f"{endpoint}/probabilities/{size}"], outputs)
        decided = case.answers[f"{endpoint}/class/{size}"]
        assert decided.dtype == np.int64
        want = {
            "binary": outputs[:, 0] > 0.5,
            "multilabel": outputs > 0.5,
        }.get(name, outputs.argmax(-1))
        np.testing.assert_array_equal(decided, want)
    logits = tf.cast(case.model.logits(x), "float32")
    near(case, case.answers[f"logits/logits/{size}"], logits)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "name", ["softmax", "linear", "binary", "multilabel", "subclassed", "half"]
)
def test_saliency_is_the_gradient_map(served: Any, name: str, size: int) -> None:
    case = served[name]
    x = case.inputs(size)
    kind = "sigmoid" if case.model.head.kind == "sigmoid" else "softmax"
    if name == "binary":  # `gradient_map` sees one unit as two columns
        kind = "softmax"
    want = gradient_map(case.model, x, kind=kind)
    got = case.answers[f"explain/saliency/{size}"]
    assert got.dtype == np.float32
    near(case, got, want)
    if len(x.shape) == 4:
        assert got.shape == (size, 6, 6)


def test_saliency_of_a_linear_model_in_numpy(served: Any) -> None:
    """`d log p_y / dx = W (onehot(y) - p)`."""
    case = served["plane"]
    kernel, bias = (np.asarray(w, "float64") for w in case.model.base.get_weights())
    x = next(iter(case.request.values())).astype("float64")
    z = x @ kernel + bias
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    want = np.abs((np.eye(3)[z.argmax(-1)] - p) @ kernel.T)
    np.testing.assert_allclose(case.answers["explain/saliency/7"], want, atol=1e-6)


@pytest.mark.parametrize("head", ["float32", "mixed_float16"])
def test_confident_saliency_survives_float16_layers(head: str) -> None:
    """`1 - p` of 1e-7 at the logits is nothing in float16."""
    keras.utils.set_random_seed(0)

    def net(body: str, head: str) -> keras.Model:
        hidden = keras.layers.Dense(8, activation="silu", dtype=body)
        last = keras.layers.Dense(3, activation="softmax", dtype=head)
        return keras.Sequential([keras.Input((6,)), hidden, last])

    full, half = net("float32", "float32"), net("mixed_float16", head)
    full.layers[-1].bias.assign([16.0, 0.0, 0.0])
    half.set_weights(full.get_weights())
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    want = gradient_map(full, x)
    assert 0 < want.max() < 1e-5
    got = make_endpoints(JSIGRModel(half))["explain"](tf.constant(x))["saliency"]
    # Logits of 16 are off by 1e-2 in float16, so is `1 - p`.
    np.testing.assert_allclose(got, want, rtol=0.05, atol=0.03 * want.max())


@pytest.mark.parametrize("name", ["token", "pair"])
def test_saliency_of_several_inputs(served: Any, name: str) -> None:
    case = served[name]
    x = case.inputs(7)
    leaves = keras.tree.flatten(x)
    floats = [leaf for leaf in leaves if leaf.dtype.is_floating]
    with tf.GradientTape() as tape:
        tape.watch(floats)
        z = case.model.logits(x)
        y = class_targets(tf.argmax(z, -1), z)
        total = tf.reduce_sum(class_score(z, y))
    gradients = dict(
        zip(
            [key for key, v in case.request.items() if v.dtype.kind == "f"],
            tape.gradient(total, floats),
            strict=True,
        )
    )
    for key, gradient in gradients.items():
        want = tf.abs(gradient)
        want = tf.reduce_sum(want, -1) if want.shape.rank > 2 else want
        output = "saliency" if name == "token" else f"saliency_{key}"
        near(case, case.answers[f"explain/{output}/7"], want)
    outputs = {k.split("/")[1] for k in case.answers if k.startswith("explain/")}
    assert len(outputs) == 2 + len(gradients)


def test_no_file_of_the_model_names_this_package(served: Any) -> None:
    folder = served["softmax"].card.parent
    files = [f for f in folder.rglob("*") if f.is_file() and f.suffix != ".json"]
    assert len(files) >= 3
    for file in files:
        assert b"keras_jsigr" not in file.read_bytes(), file.name


def test_signatures_take_named_inputs_of_any_batch_size(served: Any) -> None:
    loaded = tf.saved_model.load(str(served["token"].card.parent))
    assert sorted(loaded.signatures) == ["explain", "logits", "serving_default"]
    for function in loaded.signatures.values():
        specs = function.structured_input_signature[1]
        assert {k: (s.dtype.name, s.shape.as_list()) for k, s in specs.items()} == {
            "image": ("float32", [None, 5, 3]),
            "token_ids": ("int32", [None, 2]),
        }
