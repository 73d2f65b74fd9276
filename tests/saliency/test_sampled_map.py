import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.core.scores import predicted_targets
from keras_jsigr.saliency import (
    bounded_score,
    expected_map,
    make_mask_bank,
    sampled_map,
)

SCORES = ["squared_logits", "probability_drop", "sarfa"]


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


def test_error_messages(conv_net, images):
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
