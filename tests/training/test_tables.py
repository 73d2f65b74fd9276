"""Tables: ranges and units of columns, one input per column, what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj

LOW, HIGH = np.float32([29, 126, 0]), np.float32([77, 564, 6])
RNG = np.random.default_rng(0)
UNIT = RNG.random((32, 3), "float32")
Y = (UNIT[:, 0] > 0.5).astype("int64")
LOSS = "binary_crossentropy"


def scaled(low, width, per_column=False):
    """A network of columns in their own units, the same function of scaled ones."""
    keras.utils.set_random_seed(0)
    low, width = np.zeros(3, "float32") + low, np.float32(width)
    if per_column:
        inputs = {n: keras.Input((1,), name=n) for n in "abc"}
        x = layers.Concatenate()(list(inputs.values()))
    else:
        inputs = x = keras.Input((3,))
    x = layers.Normalization(mean=low, variance=width**2)(x)
    x = layers.Dense(8, activation="silu")(x)
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))


def history(model, x, **kwargs):
    recipe = kj.JSIGRConfig.balanced(0.05).replace(
        live_maps=kj.LiveMaps(samples=None), start_patch_sizes=(1,)
    )
    robust = kj.harden(model, 0.05, recipe, warmup=0, verbose=0, **kwargs)
    robust.compile(keras.optimizers.SGD(0.1), LOSS)
    fit = robust.fit(x, Y, epochs=2, shuffle=False, verbose=0)
    return robust, {k: np.array(v) for k, v in fit.history.items()}


def assert_close(found, expected):
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-3, err_msg=name)


def test_columns_with_ranges_of_their_own_train_as_scaled_ones(tmp_path):
    _, expected = history(scaled(0, [1, 1, 1]), UNIT)
    raw, width = LOW + UNIT * (HIGH - LOW), HIGH - LOW
    robust, found = history(scaled(LOW, width), raw, input_range=(LOW, HIGH))
    assert_close(found, expected)
    robust.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for model in (robust, loaded):
        model.fit(raw, Y, shuffle=False, verbose=0)
    for a, b in zip(robust.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    for ask in (
        lambda: robust.input_range,
        lambda: kj.attacks.PGD(steps=1)(robust, raw, Y),
        lambda: kj.evaluate_robustness(robust, raw, Y, verbose=0),
    ):
        with pytest.raises(ValueError, match="ranges of their own"):
            ask()
    with pytest.raises(ValueError, match="Column 1 of input"):
        robust.fit(raw * [1, 2, 1], Y)


def test_standardized_columns_train_as_scaled_ones():
    units = (UNIT - UNIT.mean(0)) / UNIT.std(0)
    given = {"input_range": "standardized"}
    _, expected = history(scaled(0, [1, 1, 1]), units, **given)
    raw = LOW + UNIT * (HIGH - LOW)
    robust, found = history(scaled(raw.mean(0), raw.std(0)), raw, **given)
    assert_close(found, expected)
    x, targets = tf.constant(raw[:4]), tf.zeros((4, 1))
    seed = tf.constant([0, 1])
    moved = robust._forward.perturbed_inputs(x, targets, seed, None).inputs[0]
    distance = np.abs(moved - x) / raw.std(0)
    assert distance.max() <= 0.0501
    assert (distance.max(0) > 0.01).all()
    with pytest.raises(ValueError, match="Normalization layers"):
        kj.harden(
            keras.Sequential([keras.Input((3,)), layers.Dense(2)]),
            0.1,
            input_range="standardized",
        )


def test_one_input_per_column_is_one_table():
    x = dict(zip("abc", np.split(UNIT, 3, 1), strict=True))
    _, expected = history(scaled(0, [1, 1, 1]), UNIT)
    assert (expected["selective_penalty"] > 0).all()
    recipe = kj.JSIGRConfig(
        live_maps=kj.LiveMaps(samples=None), norm="squared", estimator="exact"
    )
    results = []
    for model, data in ((scaled(0, [1] * 3), UNIT), (scaled(0, [1] * 3, True), x)):
        robust = kj.harden(model, 0.1, recipe, warmup=0, verbose=0)
        robust.compile("sgd", LOSS)
        fit = robust.fit(data, Y, shuffle=False, verbose=0)
        results.append(fit.history)
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(value, rel=1e-4), name
    assert results[0]["selective_penalty"] != results[0]["jacobian_penalty"]
    ranges = {n: (float(a), float(b)) for n, a, b in zip("abc", LOW, HIGH, strict=True)}
    raw = {
        n: v * (b - a) + a
        for (n, v), (a, b) in zip(x.items(), ranges.values(), strict=True)
    }
    with pytest.raises(ValueError, match="ranges of the inputs differ") as error:
        robust.fit(raw, Y)
    assert "One range for all is input_range=(0" in str(error.value)
    net = scaled(LOW, HIGH - LOW, True)
    _, found = history(net, raw, input_range=ranges)
    _, as_list = history(
        scaled(LOW, HIGH - LOW, True), raw, input_range=list(ranges.values())
    )
    assert_close(as_list, found)


def test_one_column_alone_and_maps_that_mark_nothing():
    net = keras.Sequential(
        [keras.Input((1,)), layers.Dense(8, activation="silu"), layers.Dense(2)]
    )
    logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust = kj.harden(net, 0.1, warmup=0, verbose=0)
    robust.compile("sgd", logits)
    log = robust.fit(UNIT[:, :1], Y, verbose=0).history
    assert log["selective_penalty"] != log["jacobian_penalty"]
    flat = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2, kernel_initializer="zeros")]
    )
    robust = kj.harden(flat, 0.1, warmup=0, verbose=0)
    robust.compile(keras.optimizers.SGD(0.0), logits)
    with pytest.warns(UserWarning, match="saliency maps mark nothing"):
        robust.fit(UNIT, Y, verbose=0)
    robust.fit(UNIT, Y, verbose=0)  # told once


def test_what_cannot_be_trained_is_refused_in_words():
    sparse = keras.Sequential([keras.Input((3,), sparse=True), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"sparse inputs .* x.toarray\(\)"):
        kj.harden(sparse, 0.1)
    robust, _ = history(scaled(0, [1, 1, 1]), UNIT)
    with pytest.raises(TypeError, match=r"is sparse: got SparseTensor"):
        robust.fit(tf.sparse.from_dense(UNIT), Y)
    pixels = keras.Input((4, 4, 1), dtype="uint8")
    bytes_ = layers.Dense(3)(layers.Flatten()(layers.Rescaling(1 / 255)(pixels)))
    with pytest.raises(ValueError, match="give the Input dtype='float32'"):
        kj.harden(keras.Model(pixels, bytes_), 0.1)
    audio = [keras.Input((4000, 1)), layers.Flatten(), layers.Dense(3)]
    with pytest.raises(ValueError, match="too long to blur"):
        kj.harden(keras.Sequential(audio), 0.1)
    for wrong in (
        "standard",
        ([0, 0], [1, 1]),
        {"other": (0, 1)},
        ([1, 0, 0], [1] * 3),
    ):
        with pytest.raises(ValueError, match="input_range"):
            kj.harden(scaled(0, [1, 1, 1]), 0.1, input_range=wrong)
