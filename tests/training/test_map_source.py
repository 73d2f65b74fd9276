"""Where maps come from: what is refused, and what is remembered."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj
from keras_jsigr.training.map_source import evidence_of


def net():
    return keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(3)]
    )


def test_a_batch_that_overflows_is_not_remembered():
    robust = kj.harden(net(), verbose=0, probe=False)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("sgd", loss, run_eagerly=True)
    typical = next(v for v in robust.variables if v.name == "typical_change")
    x = np.random.default_rng(0).uniform(size=(4, 8, 8, 1)).astype("float32")
    robust.train_on_batch(x, np.arange(4) % 3)
    before = float(typical.value)
    x[0] = np.inf
    robust.train_on_batch(x, np.arange(4) % 3)
    assert float(typical.value) == pytest.approx(before)
    assert before != pytest.approx(1e-3)


def test_maps_of_inputs_of_another_shape():
    x = np.random.default_rng(0).uniform(size=(8, 8, 8)).astype("float32")
    cache = kj.PerturbationCache.build(lambda x: x[:, 0, :3], x, verbose=0)
    with pytest.raises(ValueError, match=r"got a cache of shape \(8, 8\), expected"):
        kj.harden(net(), maps=cache, verbose=0)


def test_labels_that_agree_are_evidence_where_classes_are_independent():
    logits = tf.constant([[4.0, 4.0], [4.0, -4.0]])
    found = evidence_of(logits, "squared_logits", "sigmoid")
    np.testing.assert_allclose(found, [16.0, 16.0])
    exclusive = evidence_of(logits, "squared_logits")
    np.testing.assert_allclose(exclusive, [0.0, 16.0], atol=1e-6)


def test_one_unit_has_the_evidence_of_its_two_classes():
    units = evidence_of(tf.constant([[3.0]]), "squared_logits", "sigmoid")
    classes = evidence_of(tf.constant([[0.0, 3.0]]), "squared_logits", "softmax")
    np.testing.assert_array_equal(units, classes)


def test_maps_of_labels_that_agree_are_not_full():
    """Otherwise the selective penalty ignores all inputs of such examples."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    kernel = np.repeat(np.eye(2), 2, axis=0) * 2.5
    model.set_weights([kernel, np.zeros(2)])
    settings = {"masks_per_step": None, "baseline": "zero", "score": "logit"}
    settings |= {"form": "separate", "estimator": "exact", "jacobian_weight": 0.0}
    robust = kj.harden(model, verbose=0, probe=False, **settings)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    robust.compile(keras.optimizers.SGD(0.0), loss)
    typical = next(v for v in robust.variables if v.name == "typical_change")
    penalties = []
    for x, y in (([1, 1, 1, 1], [1, 1]), ([1, 1, -1, -1], [1, 0])):
        typical.assign(0.25)
        robust.reset_metrics()
        results = robust.train_on_batch(
            np.array([x], "float32"), np.array([y], "float32"), return_dict=True
        )
        penalties.append(results["selective_penalty"])
    assert penalties[0] > 0.1
    assert penalties[0] == pytest.approx(penalties[1], rel=1e-5)
