"""The ten modes of the design, every golden in every mode."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj

BATCH = 8


def test_eager(golden, train):
    robust = golden.compiled(run_eagerly=True)
    train(golden, robust)
    assert robust.run_eagerly


def test_graph(golden, reference):
    assert not reference.run_eagerly
    assert not reference.jit_compile
    assert set(reference.history.history) >= {"accuracy", "val_accuracy", "val_loss"}


@pytest.mark.slow
def test_xla(golden, train):
    robust = golden.compiled(jit_compile=True)
    train(golden, robust)
    assert robust.jit_compile


def half(golden, train, reference, policy, dtype):
    keras.config.set_dtype_policy(policy)
    robust = golden.compiled()
    assert robust.dtype_policy.name == policy
    history = train(golden, robust, epochs=3)
    assert robust.logits(golden.part(0, 2)[0]).dtype == dtype
    assert all(v.dtype == "float32" for v in robust.trainable_variables)
    for name in ("jacobian_penalty", "selective_penalty", "task_loss"):
        ratio = history[name][0] / reference.history.history[name][0]
        assert 0.4 < ratio < 2.5, name
    return robust


def test_float16(golden, train, reference):
    robust = half(golden, train, reference, "mixed_float16", tf.float16)
    assert isinstance(robust.optimizer, keras.optimizers.LossScaleOptimizer)
    assert int(robust.optimizer.iterations) == 6  # no step was skipped


def test_bfloat16(golden, train, reference):
    half(golden, train, reference, "mixed_bfloat16", tf.bfloat16)


@pytest.mark.slow
def test_two_devices(golden, train, two_devices):
    with two_devices.scope():
        robust = golden.compiled()
    train(golden, robust)
    for variable in robust.trainable_variables:
        np.testing.assert_array_equal(*variable.value.values)


def test_save_and_resume(golden, train, assert_same_weights, tmp_path):
    unbroken = golden.compiled()
    train(golden, unbroken)
    unbroken.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    assert type(resumed) is kj.JSIGRModel
    assert resumed.settings == unbroken.settings
    assert_same_weights(resumed, unbroken, atol=0)
    slots = [m.optimizer.variables for m in (resumed, unbroken)]
    assert len(slots[0]) >= 2 + len(resumed.trainable_variables)
    for left, right in zip(*slots, strict=True):
        np.testing.assert_array_equal(left, right)
    for model in (resumed, unbroken):
        model.fit(*golden.part(0, BATCH), batch_size=BATCH, verbose=0)
    assert int(resumed.optimizer.iterations) == 3
    assert_same_weights(resumed, unbroken)


def test_export_and_reload(golden, reference, tmp_path):
    reference.export(tmp_path / "served" / "1", verbose=0)
    served = tf.saved_model.load(tmp_path / "served" / "1").signatures
    names = [spec.name for spec in keras.tree.flatten(reference.input_specs)]
    x, _ = golden.part(0, 5)
    leaves = dict(zip(names, map(tf.constant, keras.tree.flatten(x)), strict=True))
    logits = np.asarray(reference.logits(x))
    answer = served["serving_default"](**leaves)
    np.testing.assert_allclose(
        served["logits"](**leaves)["logits"], logits, rtol=0, atol=1e-5
    )
    p = tf.nn.sigmoid(logits) if golden.binary else tf.nn.softmax(logits)
    np.testing.assert_allclose(answer["probabilities"], p, rtol=0, atol=1e-5)
    assert answer["class"].shape == (5,)


def test_tf_data(golden, train, reference, assert_same_weights):
    stream = golden.compiled()
    dataset = tf.data.Dataset.from_tensor_slices((golden.x, golden.y)).batch(BATCH)
    train(golden, stream, dataset.prefetch(1))
    assert_same_weights(stream, reference)


def test_sample_weights(golden, train, reference, assert_same_weights):
    """Weights of one change nothing; an example of weight zero has no influence."""
    ones = golden.compiled()
    weights = np.ones(len(golden.y), "float32")
    train(golden, ones, golden.x, golden.y, sample_weight=weights)
    assert_same_weights(ones, reference)
    if golden.couples:
        return
    settings = {"estimator": "exact", "selection": "all", "ramp_steps": 0}
    # One step each, eager: tracing it would take most of this test's time.
    eager = {"harden": settings, "run_eagerly": True}
    whole, rest = (golden.compiled(**eager) for _ in range(2))
    x, y = golden.part(0, BATCH)
    weights = np.repeat([0.0, 1.0], BATCH // 2).astype("float32")
    whole.fit(x, y, sample_weight=weights, batch_size=BATCH, shuffle=False, verbose=0)
    # Keras divides by the number of examples, not by the sum of the weights.
    weights = np.full(BATCH // 2, 0.5, "float32")
    rest.fit(*golden.part(BATCH // 2, BATCH), sample_weight=weights, verbose=0)
    assert_same_weights(whole, rest)
