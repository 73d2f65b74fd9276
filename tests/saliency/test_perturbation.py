"""None"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.scores import predicted_targets
from keras_jsigr.saliency import (
    baseline,
    bounded_score,
    expand_map,
    expected_map,
    interpolate,
    make_mask_bank,
    normalize_coefficients,
    perturbation_coefficients,
    perturbation_explainer,
    perturbation_map,
    sampled_map,
)

SCORES = ["squared_logits", "probability_drop", "sarfa"]


@pytest.mark.parametrize("kind", ["blur", "mean", "zero"])
def test_linear_model_in_closed_form(images, rng, kind):
    weights = rng.normal(size=(160, 3)).astype("float32")
    bank = make_mask_bank((10, 8, 2), (3, 2))
    got = perturbation_coefficients(
        lambda x: tf.reshape(x, (-1, 160)) @ weights, images, None, bank, baseline=kind
    )
    away = images - baseline(images, kind).numpy()
    lost = (bank.masks[None, ..., None] * away[:, None]).reshape(-1, 6, 160) @ weights
    np.testing.assert_allclose(got, 0.5 * (lost**2).sum(-1), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("kind", ["blur", "mean"])
@pytest.mark.parametrize("value", [0.0, 0.3, 0.7, 1.0])
def test_a_constant_image_has_an_empty_map(conv_net, score, kind, value):
    x = np.full((2, 10, 8, 2), value, "float32")
    maps = perturbation_map(conv_net, x, score=score, baseline=kind)
    np.testing.assert_array_equal(maps, 0.0)


@pytest.mark.parametrize("score", SCORES)
def test_a_faint_spot_is_no_rounding_error(conv_net, score):
    x = np.full((1, 10, 8, 2), 0.5, "float32")
    x[0, 5, 4] += 1e-3
    maps = perturbation_map(conv_net, x, np.array([0]), score=score)
    other = perturbation_map(conv_net, x, np.array([1]), score=score)
    assert max(maps.max(), other.max()) > 0.1


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("pixel", [(3, 17), (12, 3), (19, 19)])
def test_a_single_pixel_model_has_its_maximum_in_that_cell(rng, score, pixel):
    x = rng.random((4, 20, 20, 1)).astype("float32")
    x[:, pixel[0], pixel[1]] = 3.0

    def model(v):
        value = v[:, pixel[0], pixel[1], :]
        return tf.concat([2.0 * value, 0.0 * value, 0.0 * value], -1)

    maps = perturbation_map(model, x, grid=5, score=score)
    assert maps.shape == (4, 20, 20)
    for saliency in maps:
        peak = np.unravel_index(saliency.argmax(), saliency.shape)
        assert (peak[0] // 4, peak[1] // 4) == (pixel[0] // 4, pixel[1] // 4)


@pytest.mark.parametrize("score", SCORES)
def test_one_mask_at_a_time_by_hand(conv_net, images, score):
    from keras_jsigr.core.scores import predicted_targets
    from keras_jsigr.saliency import change_score

    bank = make_mask_bank((10, 8, 2), 2)
    z = conv_net(images)
    y = predicted_targets(z)
    expected = []
    for mask in bank.masks:
        m = expand_map(mask[None], images)
        other = conv_net(images * (1 - m) + baseline(images) * m)
        expected.append(change_score(z, other, y, score).numpy())
    got = perturbation_coefficients(conv_net, images, y, bank, score=score)
    np.testing.assert_allclose(got, np.transpose(expected), rtol=1e-3, atol=1e-6)
    maps = perturbation_map(conv_net, images, grid=2, score=score, normalize=False)
    np.testing.assert_allclose(maps, interpolate(bank, got), rtol=1e-3, atol=1e-6)
    maps = perturbation_map(conv_net, images, grid=2, score=score)
    unit = normalize_coefficients(got)
    np.testing.assert_allclose(maps, interpolate(bank, unit), rtol=1e-3, atol=1e-5)


def test_batches_and_order_do_not_matter(conv_net, images):
    whole = perturbation_map(conv_net, images, grid=3)
    split = perturbation_map(conv_net, images, grid=3, batch_size=4)
    np.testing.assert_allclose(whole, split, atol=1e-5)
    turned = perturbation_map(conv_net, images[::-1], grid=3)
    np.testing.assert_allclose(whole, turned[::-1], atol=1e-5)


def test_labels_and_decision(conv_net, images):
    decided = conv_net(images).numpy().argmax(-1)
    kwargs = {"grid": 2, "score": "probability_drop"}
    own = perturbation_map(conv_net, images, **kwargs)
    np.testing.assert_allclose(
        own, perturbation_map(conv_net, images, decided, **kwargs), atol=1e-6
    )
    other = perturbation_map(conv_net, images, (decided + 1) % 3, **kwargs)
    assert np.abs(own - other).max() > 0.1


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_modes_agree(conv_net, images, mode):
    bank = make_mask_bank((10, 8, 2), 2)

    def run(x):
        return perturbation_coefficients(conv_net, x, None, bank)

    expected = run(images)
    if mode != "eager":
        spec = tf.TensorSpec((None, 10, 8, 2), tf.float32)
        run = tf.function(run, input_signature=[spec], jit_compile=mode == "xla")
    got = run(tf.constant(images))
    assert got.shape == (11, 4)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)


def test_one_trace_for_any_batch_size_and_current_weights(images):
    traces = []
    factor = tf.Variable(1.0)

    def model(x):
        traces.append(1)
        return factor * tf.reduce_sum(x, (1, 2))

    bank = make_mask_bank((10, 8, 2), 2)
    explain = perturbation_explainer(
        model, images[:1], bank, batch_size=4, normalize=False
    )
    del traces[:]
    first = explain(images)
    once = len(traces)
    assert explain(images[:3]).shape == (3, 10, 8)
    assert explain(images[:0]).shape == (0, 10, 8)
    factor.assign(2.0)
    np.testing.assert_allclose(explain(images), 4.0 * first, rtol=1e-4)
    assert len(traces) == once


def test_numpy_in_numpy_out_and_tensor_in_tensor_out(conv_net, images):
    assert isinstance(perturbation_map(conv_net, images, grid=2), np.ndarray)
    got = perturbation_map(conv_net, tf.constant(images), grid=2)
    assert tf.is_tensor(got)
    assert got.dtype == tf.float32


def test_all_zero_stays_all_zero():
    np.testing.assert_array_equal(normalize_coefficients(np.zeros((2, 3))), 0.0)
    flat = np.full((2, 8, 8, 1), 0.5, "float32")
    maps = perturbation_map(lambda x: tf.reduce_sum(x, (1, 2)), flat, baseline="mean")
    np.testing.assert_array_equal(maps, 0.0)


def test_nothing_flows_back(conv_net, images):
    x = tf.constant(images)
    bank = make_mask_bank((10, 8, 2), 2)

    @tf.function
    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            found = perturbation_coefficients(conv_net, x, None, bank)
        return tape.gradient(
            found,
            [x, *(w.value for w in conv_net.trainable_weights)],
            unconnected_gradients="zero",
        )

    assert all(float(tf.reduce_max(tf.abs(g))) == 0.0 for g in gradients(x))


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_heads_are_seen_behind(images, head):
    units = 3 if head == "softmax" else 1
    dense = keras.layers.Dense(units, activation=head)
    net = keras.Sequential([keras.Input((10, 8, 2)), keras.layers.Flatten(), dense])
    got = perturbation_map(net, images, grid=2, normalize=False)
    bank = make_mask_bank((10, 8, 2), 2)
    logits = as_logits(net, images[:1])
    expected = perturbation_coefficients(logits, images, None, bank)
    np.testing.assert_allclose(got, interpolate(bank, expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 3), (13,), (9, 9, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "float64", "float16"])
def test_shapes_and_types(rng, shape, dtype):
    x = (rng.random((3, *shape)) * 9).astype(dtype)
    model = lambda v: tf.reshape(tf.cast(v, tf.float32), (3, -1))[:, :4]  # noqa: E731
    maps = perturbation_map(lambda v: model(v) if v.shape[0] == 3 else _first4(v), x)
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()


def _first4(v):
    width = int(np.prod(v.shape[1:]))
    return tf.reshape(tf.cast(v, tf.float32), (-1, width))[:, :4]


def test_mixed_precision_model(images):
    net = keras.Sequential(
        [
            keras.Input((10, 8, 2)),
            keras.layers.Conv2D(4, 3, dtype="mixed_float16"),
            keras.layers.Flatten(dtype="mixed_float16"),
            keras.layers.Dense(3, dtype="mixed_float16"),
        ]
    )
    assert np.isfinite(perturbation_map(net, images, grid=2)).all()


def test_error_messages(conv_net, images):
    bank = make_mask_bank((4, 4, 1), 2)
    with pytest.raises(ValueError, match=r"expected \(B, 4, 4, 1\)"):
        perturbation_coefficients(conv_net, images, None, bank)
    with pytest.raises(ValueError, match="Unknown `baseline`"):
        perturbation_map(conv_net, images, grid=2, baseline="noise")
    with pytest.raises(ValueError, match="Unknown `score`"):
        perturbation_map(conv_net, images, grid=2, score="logit")
    with pytest.raises(ValueError, match="batch_size 0"):
        perturbation_map(conv_net, images, grid=2, batch_size=0)
    with pytest.raises(ValueError, match="11 examples and 2 labels"):
        perturbation_map(conv_net, images, [0, 1], grid=2)
    with pytest.raises(ValueError, match="Got no examples"):
        perturbation_map(conv_net, images[:0], grid=2)
    with pytest.raises(TypeError, match="Got dict, expected one array"):
        perturbation_map(conv_net, {"a": images}, grid=2)
    with pytest.raises(TypeError, match="expected a Keras model"):
        perturbation_map("model.keras", images, grid=2)


def test_many_calls_do_not_warn_of_retracing(conv_net, images, caplog, monkeypatch):
    monkeypatch.setattr(tf.get_logger(), "propagate", True)
    for _ in range(7):
        perturbation_map(conv_net, images[:2], grid=1)
    assert "retracing" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("samples", [1, 3])
def test_unbiased_within_four_standard_errors(conv_net, images, score, samples):
    x = tf.constant(images[:4])
    z = conv_net(x)
    y = predicted_targets(z)
    bank = make_mask_bank((10, 8, 2), 3)
    kwargs = {"score": score, "scale": 0.01}
    expected, mean = expected_map(conv_net, x, y, bank, **kwargs)
    draws = 800

    @tf.function
    def draw(seed):
        return sampled_map(
            conv_net, x, z, y, bank, seed=seed, samples=samples, **kwargs
        )

    maps, means = [], []
    for i in range(draws):
        one, typical = draw(tf.constant([i, 5]))
        maps.append(one.numpy())
        means.append(float(typical))
    error = np.std(maps, 0, ddof=1) / np.sqrt(draws)
    away = np.abs(np.mean(maps, 0) - expected)
    # 320 correlated pixels: 4.5 standard errors for the largest, 4 for the mean.
    assert np.all(away <= 4.5 * error + 1e-6)
    spread = np.std(means, ddof=1) / np.sqrt(draws)
    assert abs(np.mean(means) - float(mean)) <= 4 * spread


@pytest.mark.parametrize("score", SCORES)
def test_all_masks_drawn_is_the_expected_map(conv_net, images, score):
    z = conv_net(images)
    y = predicted_targets(z)
    bank = make_mask_bank((10, 8, 2), 2)
    kwargs = {"score": score, "scale": tf.linspace(0.001, 0.1, 11)}
    expected, mean = expected_map(conv_net, images, y, bank, **kwargs)
    got, other = sampled_map(
        conv_net, images, z, y, bank, seed=[1, 2], samples=4, **kwargs
    )
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert float(mean) == pytest.approx(float(other), rel=1e-4)
    assert np.max(expected) <= 1.0


def test_draws_follow_the_seed_and_differ_between_examples(conv_net, images):
    x = np.repeat(images[:1], 40, 0)
    bank = make_mask_bank((10, 8, 2), 3)
    z = conv_net(x)
    draw = lambda seed: sampled_map(  # noqa: E731
        conv_net, x, z, None, bank, seed=seed, score="squared_logits", scale=1.0
    )[0].numpy()
    np.testing.assert_array_equal(draw([1, 2]), draw([1, 2]))
    assert not np.array_equal(draw([1, 2]), draw([1, 3]))
    assert len(np.unique(draw([1, 2]).reshape(40, -1).argmax(1))) == 9


def test_one_forward_pass_per_sample(images):
    calls = []

    def model(x):
        calls.append(1)
        return tf.reduce_sum(x, (1, 2))

    bank = make_mask_bank((10, 8, 2), 2)
    sampled_map(
        model, images, model(images), [[1.0, 0.0]] * 11, bank, seed=[0, 1], samples=2
    )
    assert len(calls) == 3


@pytest.mark.parametrize("jit", [False, True])
def test_compiled(conv_net, images, jit):
    bank = make_mask_bank((10, 8, 2), 2)

    def run(x, seed, scale):
        return sampled_map(
            conv_net,
            x,
            conv_net(x),
            None,
            bank,
            seed=seed,
            score="squared_logits",
            scale=scale,
        )[0]

    arguments = tf.constant(images), tf.constant([3, 4]), tf.constant(0.1)
    got = tf.function(run, jit_compile=jit)(*arguments)
    assert got.shape == (11, 10, 8)
    if not jit:  # XLA may draw other numbers from the same seed.
        np.testing.assert_allclose(got, run(*arguments), atol=1e-5)


def test_no_gradient(conv_net, images):
    x = tf.constant(images)
    bank = make_mask_bank((10, 8, 2), 2)
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = conv_net(x)
        y = predicted_targets(z)
        found, mean = sampled_map(conv_net, x, z, y, bank, seed=[0, 0])
    assert tape.gradient([found, mean], x) is None


def test_phi_at_zero():
    assert float(bounded_score([0.0], "squared_logits", 0.0)[0]) == 0.0
    np.testing.assert_allclose(bounded_score([3.0], "squared_logits", 1.0), 0.75)
    np.testing.assert_allclose(bounded_score([0.3], "sarfa"), 0.3)


def test_error_messages_sampled_map(conv_net, images):
    bank = make_mask_bank((10, 8, 2), 2)
    call = lambda **k: sampled_map(  # noqa: E731
        conv_net, images, conv_net(images), None, bank, seed=[0, 0], **k
    )
    with pytest.raises(ValueError, match="from 1 to 4"):
        call(samples=5)
    with pytest.raises(ValueError, match="Got no scale"):
        call(score="squared_logits")
    with pytest.raises(ValueError, match="Got no targets"):
        call()
    with pytest.raises(ValueError, match="Got no scale"):
        expected_map(conv_net, images, None, bank, score="squared_logits")
