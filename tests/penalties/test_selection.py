"""Selections, alignment and ramps against closed forms."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.penalties import alignment_penalty, ramp_factor, selection_weights


@pytest.fixture
def saliency():
    return tf.constant(np.random.default_rng(0).uniform(0, 1, (4, 6, 6)), tf.float32)


def test_soft_all_none(saliency):
    np.testing.assert_allclose(selection_weights(saliency, "soft"), 1 - saliency)
    np.testing.assert_array_equal(selection_weights(saliency, "all"), 1.0)
    np.testing.assert_array_equal(selection_weights(saliency, "none"), 0.0)


@pytest.mark.parametrize("quantile", [0.0, 0.25, 0.5, 1.0])
def test_hard_takes_the_least_salient_share(saliency, quantile):
    chosen = selection_weights(saliency, "hard", quantile=quantile).numpy() > 0
    assert (chosen.reshape(4, -1).sum(1) == round(36 * quantile)).all()
    for mask, s in zip(chosen, saliency.numpy(), strict=True):
        if mask.any() and not mask.all():
            assert s[mask].max() < s[~mask].min()


@pytest.mark.parametrize("share", [0.07, 0.29, 0.55, 0.57])
@pytest.mark.parametrize("known", [True, False])
def test_a_share_is_not_rounded_up_by_its_last_bit(share, known):
    s = np.random.default_rng(0).permutation(100).reshape(1, 10, 10) / 100

    @tf.function(input_signature=[tf.TensorSpec((1, None, None))])
    def of_any_sides(s):
        return selection_weights(s, "hard", quantile=share)

    s = tf.constant(s, tf.float32)
    marks = selection_weights(s, "hard", quantile=share) if known else of_any_sides(s)
    assert float(tf.reduce_sum(marks)) == round(100 * share)


def test_inverted_complements_hard(saliency):
    hard = selection_weights(saliency, "hard", quantile=0.5)
    inverted = selection_weights(saliency, "inverted", quantile=0.5)
    np.testing.assert_array_equal(hard + inverted, 1.0)


def test_random_has_the_density_of_hard_and_follows_the_seed(saliency):
    a = selection_weights(saliency, "random", seed=(1, 2)).numpy()
    assert (a.reshape(4, -1).sum(1) == 18).all()
    np.testing.assert_array_equal(a, selection_weights(saliency, "random", seed=(1, 2)))
    assert (a != selection_weights(saliency, "random", seed=(1, 3)).numpy()).any()


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.5, 1.0])
def test_sides_that_are_known_late_select_the_same(saliency, quantile):
    def select(s):
        return selection_weights(s, "random", quantile=quantile, seed=(1, 2))

    late = tf.function(select, input_signature=[tf.TensorSpec((None, None, None))])
    np.testing.assert_array_equal(late(saliency), select(saliency))


def test_threshold_levels(saliency):
    given = selection_weights(saliency, "threshold", threshold=0.3)
    np.testing.assert_array_equal(given, saliency.numpy() < 0.3)
    s = saliency.numpy()
    level = s.mean((1, 2), keepdims=True) + s.std((1, 2), keepdims=True)
    np.testing.assert_array_equal(selection_weights(saliency, "threshold"), s < level)


def test_a_map_of_zeros_selects_everything():
    zeros = tf.zeros((1, 3, 3))
    for selection in ("soft", "hard", "all"):
        np.testing.assert_array_equal(selection_weights(zeros, selection), 1.0)


def test_no_gradient_flows_into_the_selection(saliency):
    for selection in ("soft", "hard", "threshold", "inverted", "all"):
        with tf.GradientTape() as tape:
            tape.watch(saliency)
            total = tf.reduce_sum(selection_weights(saliency, selection))
        assert tape.gradient(total, saliency) is None


def test_unknown_selection(saliency):
    with pytest.raises(ValueError, match="Unknown `selection`: got 'best'"):
        selection_weights(saliency, "best")


def test_alignment_is_one_minus_the_cosine():
    rng = np.random.default_rng(1)
    g = rng.standard_normal((3, 4, 4, 2)).astype("float32")
    s = rng.uniform(0, 1, (3, 4, 4)).astype("float32")
    a = np.abs(g).sum(-1).reshape(3, -1)
    b = s.reshape(3, -1)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(alignment_penalty(g, s), 1 - cosine, rtol=1e-5)
    np.testing.assert_allclose(alignment_penalty(5 * g, s), 1 - cosine, rtol=1e-5)
    same = np.abs(g).sum(-1)
    np.testing.assert_allclose(alignment_penalty(g, same), 0.0, atol=1e-6)


def test_alignment_at_exactly_zero_has_no_nan():
    g = tf.zeros((2, 3, 3, 1))
    with tf.GradientTape() as tape:
        tape.watch(g)
        value = alignment_penalty(g, tf.zeros((2, 3, 3)))
    np.testing.assert_array_equal(value, 1.0)
    np.testing.assert_array_equal(tape.gradient(value, g), 0.0)


@pytest.mark.parametrize(
    ("delay", "ramp", "expected"),
    [
        (0, 0, [1, 1, 1, 1, 1]),
        (0, 4, [0.25, 0.5, 0.75, 1, 1]),
        (2, 0, [0, 0, 1, 1, 1]),
        (2, 2, [0, 0, 0.5, 1, 1]),
    ],
)
def test_ramp(delay, ramp, expected):
    steps = [float(ramp_factor(tf.constant(t), delay, ramp)) for t in range(5)]
    np.testing.assert_allclose(steps, expected)
