"""The picture: nothing blank, nothing outside, scales as documented."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from keras_jsigr.callbacks.grid import cells
from keras_jsigr.callbacks.grid.animation import FRAMES, Animation
from keras_jsigr.callbacks.grid.columns import make_columns
from keras_jsigr.callbacks.grid.lettering import Lettering
from keras_jsigr.callbacks.grid.measurement import Measurement
from keras_jsigr.callbacks.grid.picture import draw_grid

NAMES = ["a class with a name that is far too long", "Trouser", "鞋"]


def seen(n=3, shape=(28, 28, 1), scale=1.0):
    rng = np.random.default_rng(0)
    x, x_adv = rng.uniform(0.0, 1.0, (2, n, *shape))
    maps = rng.uniform(0.0, scale, (3, n, *shape[:2]))
    p = rng.dirichlet(np.ones(3), n)
    figures = ("agreement", "stability", "sparsity", "jacobian_norm")
    figures = {name: rng.uniform(0, 1, n) for name in figures}
    return Measurement(x, x_adv, np.arange(n) % 3, p, p, *maps, figures=figures)


def draw(measurement, **kwargs):
    settings = {"title": "epoch 3", "attack": "PGD", "input_range": (0.0, 1.0)}
    return draw_grid(measurement, **{**settings, **kwargs})


@pytest.mark.parametrize(
    "shape", [(28, 28, 1), (224, 224, 3), (28, 28), (16, 90, 3), (90, 16, 5), (1, 1, 1)]
)
def test_every_cell_is_drawn(shape):
    picture = draw(seen(shape=shape), class_names=NAMES)
    assert picture.dtype == np.uint8
    assert (picture[0] == 255).all()
    rows = ~(picture == 255).all((1, 2))
    columns = ~(picture == 255).all((0, 2))
    # A margin on all sides, text at the left, six pictures, text at the right.
    assert not rows[:8].any()
    assert not rows[-8:].any()
    assert not columns[:12].any()
    assert not columns[-12:].any()
    for column in make_columns(seen(shape=shape), (0.0, 1.0)):
        for image in column.images:
            assert max(image.size) <= 128
            assert shape[0] == 1 or np.asarray(image).std() > 5


def test_eight_rows_are_readable_and_small():
    picture = draw(seen(n=8), class_names=NAMES)
    assert picture.shape[0] < 1200
    assert picture.shape[1] < 1200


def test_texts_do_not_meet():
    # Without text in the column of labels nothing changes in the other columns.
    long, short = (draw(seen(), class_names=[c * 60] * 3) for c in "Wi")
    differs = (long != short).any((0, 2))
    assert 0 < np.flatnonzero(differs).max() < 166


def test_one_scale_for_all_gradient_maps():
    measurement = seen()
    measurement.gradient[1] /= 10.0
    gradient, adversarial = (make_columns(measurement, (0.0, 1.0))[k] for k in (1, 5))
    top = float(np.quantile(measurement.gradient, 0.99))
    assert gradient.note == adversarial.note == f"0 to {top:.2f}"
    expected = cells.heat(measurement.gradient[1] / top)
    np.testing.assert_array_equal(gradient.images[1], cells.cell(expected))
    bright, dark = (np.asarray(gradient.images[k]).mean() for k in (0, 1))
    assert dark < 0.5 * bright


def test_scale_does_not_change_the_picture_of_a_map():
    small, large = (make_columns(seen(scale=s), (0.0, 1.0))[1] for s in (1e-6, 1e6))
    for a, b in zip(small.images, large.images, strict=True):
        np.testing.assert_array_equal(a, b)


def test_colours_grow_brighter():
    colours = cells.heat(np.linspace(0.0, 1.0, 256)[None, None])[0, 0]
    light = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > -1e-3).all()
    assert light[-1] - light[0] > 0.9


def test_what_is_not_finite_counts_as_nothing():
    maps = np.array([[[np.nan, np.inf, 1.0]]])
    assert cells.shares(maps, 1.0).tolist() == [[[0.0, 0.0, 1.0]]]
    assert cells.column_top(np.full((1, 2, 2), np.nan)) == 0.0
    assert cells.shares(maps, 0.0).tolist() == [[[0.0, 0.0, 0.0]]]


def test_range_and_channels():
    x = np.array([[[[0.0, 255.0]]]])
    assert cells.rgb(x, (0.0, 255.0)).tolist() == [[[[0.5] * 3]]]
    assert cells.rgb(x[..., 0] - 5.0, (0.0, 1.0)).tolist() == [[[[0.0] * 3]]]


@pytest.mark.parametrize(
    ("text", "expected"), [("a\nb", "a b"), ("鞋", "?"), ("", ""), ("é ε ✓", "é ε ✓")]
)
def test_lettering(text, expected):
    write = Lettering(ImageDraw.Draw(Image.new("RGB", (100, 20))))
    assert write.fitted(text, 80, 12) == expected


def test_long_films_are_thinned(tmp_path):
    paths = []
    for index in range(FRAMES + 20):
        paths.append(tmp_path / f"{index:03d}.png")
        Image.new("RGB", (8, 6), (3 * index, 0, 0)).save(paths[-1])
    film = Animation(tmp_path / "film.gif")
    film.write(paths[:2])
    film.write(paths)
    with Image.open(tmp_path / "film.gif") as gif:
        assert gif.n_frames == FRAMES
        assert gif.convert("RGB").getpixel((0, 0)) == (0, 0, 0)
        gif.seek(FRAMES - 1)
        red = gif.convert("RGB").getpixel((0, 0))[0]
        assert abs(red - 3 * (FRAMES + 19)) <= 8
