"""The ten modes of the design, every golden in every mode."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj

BATCH = 8
EXACT = {"estimator": "exact", "selection": "all", "probe": False, "ramp_steps": 0}


def test_eager(golden, train):
    robust = golden.compiled(run_eagerly=True)
    train(golden, robust)
    assert robust.run_eagerly


def test_graph(golden, train):
    robust = golden.compiled()
    train(golden, robust, epochs=2)
    assert not robust.run_eagerly
    assert not robust.jit_compile


def test_xla(golden, train):
    settings = {}
    if golden.pools:  # MaxPoolGradGrad has no XLA kernel; differences need none
        settings = {"estimator": "finite_difference", "norm": "squared"}
        settings |= {"form": "separate"}
    robust = golden.compiled(harden=settings, jit_compile=True)
    train(golden, robust)
    assert robust.jit_compile


def half(golden, train, policy, dtype):
    keras.config.set_dtype_policy(policy)
    robust = golden.compiled()
    assert robust.dtype_policy.name == policy
    history = train(golden, robust, epochs=4)
    assert robust.logits(golden.part(0, 2)[0]).dtype == dtype
    assert all(v.dtype == "float32" for v in robust.trainable_variables)
    keras.config.set_dtype_policy("float32")
    plain = golden.compiled()
    plain.fit(golden.x, golden.y, batch_size=BATCH, epochs=1, shuffle=False, verbose=0)
    return robust, history["jacobian_penalty"][0], plain.history.history


def test_float16(golden, train):
    robust, penalty, reference = half(golden, train, "mixed_float16", tf.float16)
    assert isinstance(robust.optimizer, keras.optimizers.LossScaleOptimizer)
    assert 0.5 < penalty / reference["jacobian_penalty"][0] < 2.0


def test_bfloat16(golden, train):
    _, penalty, reference = half(golden, train, "mixed_bfloat16", tf.bfloat16)
    assert 0.5 < penalty / reference["jacobian_penalty"][0] < 2.0


def test_two_devices(golden, train):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        robust = golden.compiled()
    train(golden, robust)
    assert robust.distribute_strategy.num_replicas_in_sync == 2
    values = robust.trainable_variables[0].value.values
    np.testing.assert_array_equal(*values)


def test_save_and_resume(golden, train, assert_same_weights, tmp_path):
    unbroken = golden.compiled()
    train(golden, unbroken)
    unbroken.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    assert type(resumed) is kj.JSIGRModel
    assert resumed.settings == unbroken.settings
    assert_same_weights(resumed, unbroken, atol=0)
    slots = [m.optimizer.variables for m in (resumed, unbroken)]
    assert len(slots[0]) > 2
    for left, right in zip(*slots, strict=True):
        np.testing.assert_array_equal(left, right)
    for model in (resumed, unbroken):
        model.fit(*golden.part(0, BATCH), batch_size=BATCH, verbose=0)
    assert int(resumed.optimizer.iterations) == 3
    assert_same_weights(resumed, unbroken)


def test_export_and_reload(golden, train, tmp_path):
    robust = golden.compiled()
    train(golden, robust)
    robust.export(tmp_path / "served" / "1", verbose=0)
    served = tf.saved_model.load(tmp_path / "served" / "1").signatures
    names = [spec.name for spec in keras.tree.flatten(robust.input_specs)]
    x, _ = golden.part(0, 5)
    leaves = dict(zip(names, map(tf.constant, keras.tree.flatten(x)), strict=True))
    logits = np.asarray(robust.logits(x))
    answer = served["serving_default"](**leaves)
    np.testing.assert_allclose(
        served["logits"](**leaves)["logits"], logits, rtol=0, atol=1e-5
    )
    p = tf.nn.sigmoid(logits) if golden.binary else tf.nn.softmax(logits)
    np.testing.assert_allclose(answer["probabilities"], p, rtol=0, atol=1e-5)
    assert answer["class"].shape == (5,)


def test_tf_data(golden, train, assert_same_weights):
    arrays, stream = golden.compiled(), golden.compiled()
    train(golden, arrays)
    dataset = tf.data.Dataset.from_tensor_slices((golden.x, golden.y)).batch(BATCH)
    train(golden, stream, dataset.prefetch(1))
    assert_same_weights(arrays, stream)


def test_sample_weights(golden, train, assert_same_weights):
    """Weights of one change nothing; an example of weight zero has no influence."""
    plain, ones = golden.compiled(), golden.compiled()
    train(golden, plain)
    ones_weight = np.ones(len(golden.y), "float32")
    train(golden, ones, golden.x, golden.y, sample_weight=ones_weight)
    assert_same_weights(plain, ones)
    if golden.couples:
        return
    rate = keras.optimizers.SGD
    whole = golden.compiled(rate(0.1), harden=EXACT)
    rest = golden.compiled(rate(0.1), harden=EXACT)
    x, y = golden.part(0, BATCH)
    weights = np.repeat([0.0, 1.0], BATCH // 2).astype("float32")
    whole.fit(x, y, sample_weight=weights, batch_size=BATCH, shuffle=False, verbose=0)
    # Keras divides by the number of examples, not by the sum of the weights.
    half = np.full(BATCH // 2, 0.5, "float32")
    rest.fit(*golden.part(BATCH // 2, BATCH), sample_weight=half, verbose=0)
    assert_same_weights(whole, rest)
