"""The small parts of an evaluation, each by itself."""

import base64

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks.calls.inside import distance
from keras_jsigr.attacks.calls.inside import inside as within
from keras_jsigr.attacks.calls.predictions import classified_rightly, predict_logits
from keras_jsigr.evaluation.log import Log, in_words
from keras_jsigr.evaluation.parts.classes import chance
from keras_jsigr.evaluation.parts.curve import default_radii
from keras_jsigr.evaluation.parts.examples import spread
from keras_jsigr.evaluation.parts.pictures import (
    as_images,
    difference_picture,
    image_picture,
    map_picture,
)
from keras_jsigr.evaluation.task import widest_radius


def decode(picture):
    return tf.io.decode_png(base64.b64decode(picture)).numpy()


@pytest.mark.parametrize("channels", [1, 3])
def test_image_picture(channels):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 7, channels))
    np.testing.assert_array_equal(decode(image_picture(pixels / 255, (0, 1))), pixels)
    centred = (pixels / 127.5 - 1).astype("float32")
    np.testing.assert_array_equal(decode(image_picture(centred, (-1.0, 1.0))), pixels)
    # Outside of the range: cut, not wrapped around.
    loud = decode(image_picture(3.0 * pixels, (0, 255)))
    np.testing.assert_array_equal(loud, np.minimum(3 * pixels, 255))


def test_difference_picture():
    difference = np.zeros((2, 2, 3))
    assert (decode(difference_picture(difference)) == 128).all()
    difference[0, 0, 1], difference[1, 1, 2] = 1e-3, -5e-4
    shown = decode(difference_picture(difference)).astype(int)
    assert shown[0, 0, 1] == 255
    assert shown[1, 1, 2] == 64
    assert shown[0, 1, 0] == 128


def test_map_picture():
    values = np.arange(100.0).reshape(10, 10)
    shown = decode(map_picture(values)).astype(int)
    assert shown.shape == (10, 10, 3)
    brightness = shown.sum(-1).ravel()
    assert brightness[0] == 4
    assert (np.diff(brightness) >= 0).all()
    np.testing.assert_array_equal(decode(map_picture(7 * values)), shown)
    for odd in (np.zeros((3, 3)), np.full((3, 3), np.nan)):
        assert (decode(map_picture(odd)) == [0, 0, 4]).all()
    one = np.zeros((20, 20))
    one[3, 4] = 2.0
    assert decode(map_picture(one))[3, 4].sum() > 600


def test_what_is_an_image():
    for shape, expected in {
        (9, 8, 6, 1): (9, 8, 6, 1),
        (9, 8, 6, 3): (9, 8, 6, 3),
        (9, 8, 8): (9, 8, 8, 1),
        (9, 8, 6): None,
        (9, 8): None,
        (9, 8, 6, 4): None,
        (9, 4, 8, 6, 3): None,
    }.items():
        found = as_images(np.zeros(shape))
        assert (None if found is None else found.shape) == expected


def test_spread_takes_all_classes_in_turn():
    labels = np.array([0, 0, 0, 0, 1, 2, 2, 0])
    rows = np.arange(8)
    assert spread(rows, labels, 3).tolist() == [0, 4, 5]
    assert spread(rows, labels, 5).tolist() == [0, 1, 4, 5, 6]
    assert spread(rows[1:], labels, 99).tolist() == list(range(1, 8))
    assert spread(rows[:0], labels, 3).tolist() == []
    assert spread(rows, labels, 0).tolist() == []


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("top", [1.0, 255.0])
def test_within(norm, top):
    rng = np.random.default_rng(1)
    x = (top * rng.uniform(0.4, 0.6, (6, 5, 5, 1))).astype("float32")
    step = rng.normal(size=x.shape)
    step /= distance(x + step, x, norm)[:, None, None, None]
    radius = 0.05 * top
    inside = (x + radius * step).astype("float32")
    assert within(inside, x, radius, norm, (0.0, top)).all()
    outside = x + 1.01 * radius * step
    assert not within(outside, x, radius, norm, (0.0, top)).any()
    # In the ball, but not in the range.
    assert not within(inside, x, radius, norm, (0.0, 0.3 * top)).any()
    inside[2, 0, 0] = np.nan
    inside[3, 0, 0] = np.inf
    expected = [True, True, False, False, True, True]
    assert within(inside, x, radius, norm, (0.0, top)).tolist() == expected


def test_distances():
    x = np.zeros((1, 3), "float16")
    moved = np.array([[3.0, -4.0, 0.0]], "float16")
    lengths = [float(distance(moved, x, norm)[0]) for norm in ("linf", "l2", "l1")]
    assert lengths == [4.0, 5.0, 7.0]


def test_radii():
    for epsilon, widest in ((8 / 255, 1.0), (0.5, 28.0), (0.3, 1.0), (0.99, 1.0)):
        radii = default_radii(epsilon, widest)
        assert radii == sorted(set(radii))
        assert epsilon in radii
        assert radii[-1] == widest
        assert len(radii) < 25
    assert widest_radius("linf", (-1.0, 1.0), 9) == 2.0
    assert widest_radius("l2", (-1.0, 1.0), 9) == 6.0
    assert widest_radius("l1", (-1.0, 1.0), 9) == 18.0


def test_chance():
    assert chance(np.array([0, 1, 2, 1]), 3) == 0.5
    assert chance(np.array([0, 1, 2, 3]), 10) == 0.25
    assert chance(np.arange(10), 4000) == 0.1


def test_right_answers():
    logits = [[1, 2], [2, 1], [np.nan, 1], [1, np.inf]]
    right = classified_rightly(logits, [1, 1, 1, 1])
    assert right.tolist() == [True, False, False, False]


def test_logits_in_batches():
    sizes = []

    def model(x):
        sizes.append(x.shape[0])
        return 2.0 * x

    x = np.random.default_rng(0).uniform(size=(11, 3)).astype("float32")
    np.testing.assert_array_equal(predict_logits(model, x, 4), 2 * x)
    # Tried once, traced once: for all batches, and for the next call.
    assert sizes.count(None) == 1
    runs = len(sizes)
    assert predict_logits(model, x[:3], 2).shape == (3, 3)
    assert predict_logits(model, x[:0], 2).shape == (0, 3)
    assert len(sizes) == runs


def test_log(capsys):
    for verbose, lines in ((0, 0), ("auto", 0), (1, 3)):
        log = Log(verbose)
        with log.part("suite"):
            log.say("one line")
        with log.part("curve"):
            raise ValueError("first\n  second")
        assert len(capsys.readouterr().out.splitlines()) == lines + (verbose == 1)
        assert log.errors == ["curve: ValueError: first"]
        assert set(log.seconds) == {"suite", "curve"}
        assert log.total() >= sum(log.seconds.values())
    with pytest.raises(KeyboardInterrupt), log.part("transfer"):
        raise KeyboardInterrupt
    assert "transfer" in log.seconds
    assert in_words(KeyError("a")) == "KeyError: 'a'"
    assert in_words(ValueError()) == "ValueError"
    assert len(in_words(ValueError("x" * 999))) < 320
