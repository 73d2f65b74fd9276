"""Noise on patches: where it is constant, how it is spread, what it does not touch."""

import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr.attacks.balls.ball import LinfBall
from keras_jsigr.training.patch_noise import patch_noise

SEED = (3, 5)


def drawn(shape, *sides, seed=SEED):
    return patch_noise(tf.zeros(shape), seed, sides).numpy()


def borders(noise, axis):
    """Return where the noise changes along an axis, as positions."""
    changes = np.diff(noise, axis=axis) != 0
    others = tuple(a for a in range(noise.ndim) if a != axis)
    return np.flatnonzero(changes.any(others)) + 1


@pytest.mark.parametrize("side", [2, 4, 7])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_changes_at_the_borders_of_one_grid_alone(side, seed):
    noise = drawn((3, 17, 23, 2), side, seed=(seed, 0))
    for axis in (1, 2):
        found = borders(noise, axis)
        assert len(set(found % side)) == 1
        np.testing.assert_array_equal(np.diff(found), side)
        assert found[0] <= side
        assert found[-1] >= noise.shape[axis] - side


def test_examples_channels_and_patches_are_independent():
    noise = drawn((200, 12, 12, 3), 4)
    count = noise[:, 0, 0, 0].size
    for a, b in (
        (noise[:-1, 5, 5, 0], noise[1:, 5, 5, 0]),
        (noise[:, 5, 5, 0], noise[:, 5, 5, 1]),
        (noise[:, 0, 0, 0], noise[:, 6, 0, 0]),
    ):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(count)


@pytest.mark.parametrize("sides", [(1,), (4,)])
def test_one_pattern_is_uniform(sides):
    noise = drawn((4000, 8, 8, 1), *sides)[:, 3, 3, 0]
    assert np.abs(noise).max() <= 1
    assert abs(noise.mean()) < 4 / np.sqrt(3 * noise.size)
    # The variance of the square of a uniform variable is 4 / 45.
    assert abs(np.square(noise).mean() - 1 / 3) < 4 * np.sqrt(4 / 45 / noise.size)


def test_grids_begin_anywhere():
    first = {borders(drawn((1, 40, 40, 1), 4, seed=(n, 0)), 1)[0] for n in range(60)}
    assert first == {1, 2, 3, 4}


def test_several_patterns_are_added_and_clipped():
    noise = drawn((2000, 8, 8, 1), 2, 4, 7)[:, 3, 3, 0]
    assert np.abs(noise).max() == 1
    # |n_1 + n_2 + n_3| of uniform variables exceeds 1 with probability 1/3.
    share = np.mean(np.abs(noise) == 1)
    assert abs(share - 1 / 3) < 4 * np.sqrt(2 / 9 / noise.size)


def test_a_further_pattern_is_added_to_the_first():
    first, both = drawn((5, 24, 24, 1), 2), drawn((5, 24, 24, 1), 2, 4)
    second = np.where(np.abs(both) < 1, both - first, np.nan)
    for axis in (1, 2):
        steps = np.diff(second, axis=axis)
        others = tuple(a for a in range(4) if a != axis)
        found = np.flatnonzero((np.nan_to_num(np.abs(steps)) > 1e-6).any(others)) + 1
        assert len(set(found % 4)) == 1


def test_another_seed_draws_other_noise():
    assert (drawn((5, 9, 9, 1), 4) != drawn((5, 9, 9, 1), 4, seed=(3, 6))).any()


def test_side_one_is_the_uniform_draw_of_the_ball():
    x = tf.fill((6, 5, 4, 2), 0.5)
    ball = LinfBall(x, 0.25, (0.0, 1.0))
    np.testing.assert_array_equal(
        0.5 + 0.25 * patch_noise(x, SEED), ball.sample(tf.constant(SEED))
    )


def test_features_have_no_neighbours():
    np.testing.assert_array_equal(drawn((5, 30), 4), drawn((5, 30), 1))


def test_sequences_have_patches_of_steps():
    noise = drawn((3, 20, 2), 5)
    assert len(set(borders(noise, 1) % 5)) == 1
    assert (noise[:, :, 0] != noise[:, :, 1]).any()


def test_lengths_may_be_unknown_when_traced():
    spec = tf.TensorSpec((None, None, None, 1))
    traced = tf.function(lambda x: patch_noise(x, SEED, (2, 4)), input_signature=[spec])
    x = tf.zeros((2, 9, 11, 1))
    np.testing.assert_array_equal(traced(x), patch_noise(x, SEED, (2, 4)))
    compiled = tf.function(lambda x: patch_noise(x, SEED, (2, 4)), jit_compile=True)
    np.testing.assert_array_equal(compiled(x), patch_noise(x, SEED, (2, 4)))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (4, TypeError, "`noise_patches` is not a list: got 4"),
        ((), ValueError, "`noise_patches` is empty"),
        ((2, 0), ValueError, "`noise_patches` is out of range: got 0"),
        ((2.5,), TypeError, "`noise_patches` is not an integer"),
    ],
)
def test_sides_are_checked(given, error, message):
    with pytest.raises(error, match=message):
        kj.PenaltySettings(noise_patches=given)


def test_settings_come_back():
    settings = kj.PenaltySettings(noise=0.1, noise_patches=[2, 4])
    assert settings.noise_patches == (2, 4)
    assert kj.PenaltySettings.from_config(settings.get_config()) == settings
