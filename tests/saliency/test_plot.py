"""The figure of images and maps: colors, layout, letters, and no shared state."""

import pickle
import sys
import threading

import matplotlib
import numpy as np
import pytest

import keras_jsigr as kj
from keras_jsigr.saliency import plot

NAMES = ["a class with a name that is far too long", "Trouser", "鞋"]


def images(n=3, shape=(8, 8, 1), seed=0):
    return np.random.default_rng(seed).uniform(0.0, 1.0, (n, *shape))


def shown(figure, column):
    """Return the pictures of a column, from the top."""
    pictures = figure.axes[0].images
    lefts = sorted({image.get_extent()[0] for image in pictures})
    of_column = [i for i in pictures if i.get_extent()[0] == lefts[column]]
    return [np.asarray(image.get_array(), float) for image in of_column]


def magma(values):
    return matplotlib.colormaps["magma"](np.asarray(values, float))[..., :3]


def test_each_map_has_its_own_scale_or_a_column_shares_one():
    x = images(2, (1, 2))
    maps = np.array([[[0.0, 1.0]], [[0.0, 4.0]]])
    own = shown(kj.plot_saliency(x, maps), 1)
    top = 0.99  # the 99th percentile of 0 and 1
    np.testing.assert_allclose(own[0], magma(np.minimum(maps[0] / top, 1.0)))
    np.testing.assert_allclose(own[1], own[0])
    figure = kj.plot_saliency(x, maps, shared_scale=True)
    shared, top = shown(figure, 1), np.quantile(maps, 0.99)
    np.testing.assert_allclose(shared[0], magma(maps[0] / top))
    assert f"0 to {top:.2f}" in labels(figure)


def test_negative_values_are_blue_and_positive_ones_red():
    maps = np.array([[[-2.0, 0.0, 2.0]]])
    (colors,) = shown(kj.plot_saliency(images(1, (1, 3)), {"signed": maps}), 1)
    blue, white, red = colors[0]
    assert blue[2] > 2 * blue[0]
    assert red[0] > 2 * red[2]
    assert white.min() > 0.9
    for values in (np.array([[[np.nan, np.inf, 1.0]]]), np.full((1, 1, 3), np.nan)):
        (colors,) = shown(kj.plot_saliency(images(1, (1, 3)), values), 1)
        np.testing.assert_allclose(colors[0, :2], magma([0.0, 0.0]))


def test_an_overlay_leaves_the_image_grey_where_nothing_is_salient():
    x = images(1, (4, 4, 3))
    maps = np.zeros((1, 4, 4))
    maps[0, 0, 0] = 1.0
    (colors,) = shown(kj.plot_saliency(x, maps, overlay=True), 1)
    np.testing.assert_allclose(colors[..., 0].ravel()[1:], colors[..., 2].ravel()[1:])
    np.testing.assert_allclose(colors[1, 1, 0], 0.6 * x[0, 1, 1].mean())
    assert colors[0, 0, 0] > 0.8


def test_channels_and_range():
    maps = images(1, (3, 4))
    for shape in ((3, 4), (3, 4, 1), (3, 4, 2), (3, 4, 5)):
        x = images(1, shape)
        figure = kj.plot_saliency(255 * x, maps, input_range=(0, 255))
        (grey,) = shown(figure, 0)
        want = x[0] if x.ndim == 3 else x[0].mean(-1)
        np.testing.assert_allclose(grey, np.repeat(want[..., None], 3, -1), atol=1e-6)
    x = images(1, (3, 4, 3))
    (color,) = shown(kj.plot_saliency(x, x[..., 0]), 0)
    np.testing.assert_allclose(color, x[0], atol=1e-6)


def boxes(figure):
    """Return the rectangles of texts and pictures on the canvas."""
    plot.to_pixels(figure)
    axes, renderer = figure.axes[0], figure.canvas.get_renderer()
    texts = [t.get_window_extent(renderer) for t in axes.texts]
    return texts, [i.get_window_extent(renderer) for i in axes.images]


def test_nothing_overlaps_and_all_is_on_the_canvas():
    for shape in ((28, 28, 1), (224, 224, 3), (16, 90)):
        x, p = images(6, shape), np.full((6, 3), 1 / 3)
        maps = {k: images(6, shape[:2]) - 0.5 * (k == "b") for k in ("W" * 40, "a", "b")}
        for settings in (
            {},
            {"shared_scale": True, "overlay": True, "title": "T" * 200},
            {"y": np.arange(6) % 3},
            {"y": np.eye(3)[[0, 1, 2, 0, 1, 2]], "probabilities": p, "class_names": NAMES},
        ):
            figure = kj.plot_saliency(x, maps, **settings)
            texts, pictures = boxes(figure)
            width, height = figure.bbox.size
            for box in (*texts, *pictures):
                assert box.x0 >= 8
                assert box.y0 >= 4
                assert box.x1 <= width - 8
                assert box.y1 <= height - 4
            for index, box in enumerate(texts):
                assert not box.count_overlaps([*texts[:index], *pictures])
            pixels = plot.to_pixels(figure)
            assert pixels.shape == (round(height), round(width), 3)
            assert max(pixels.shape) <= 1000
            assert all(max(box.size) <= 129 for box in pictures)


def labels(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_rows_are_labelled_with_classes_and_probabilities():
    x = images(2)
    p = np.array([[0.1, 0.9], [0.7, 0.3]])
    figure = kj.plot_saliency(x, x[..., 0], [1, 1], p, class_names=["cat", "dog"])
    found = labels(figure)
    assert {"dog", "predicted: 90 %", "✓ dog", "predicted: 70 %", "✗ cat"} <= {*found}
    found = labels(kj.plot_saliency(x, x[..., 0], probabilities=p[:, :1]))
    assert found.count("class 0") == 2 - found.count("class 1")
    assert "predicted: 90 %" in found


def test_letters_that_no_font_has(caplog):
    x = images(1)
    for name, expected in (
        ("a\nb", "a b"),
        ("鞋", "?"),
        ("é ε ✓", "é ε ✓"),
        ("$x_1$ _b_", "$x_1$ _b_"),
        ("W" * 50, "W" * 8 + "…"),
    ):
        figure = kj.plot_saliency(x, x[..., 0], [0], class_names=[name])
        plot.to_pixels(figure)
        found = [text for text in labels(figure) if text[:3] == expected[:3]]
        assert found, (name, labels(figure))
        assert found[0] == expected or found[0].endswith("…")
    assert not caplog.records


def test_another_font_has_the_letters(caplog):
    fonts, missing = plot.find_fonts(frozenset("⌓鞋"))
    assert fonts["⌓"] == "DejaVu Sans Mono"
    assert missing <= {"鞋"}
    x = images(1)
    figure = kj.plot_saliency(x, x[..., 0], [0], class_names=["a ⌓ b"])
    without = kj.plot_saliency(x, x[..., 0], [0], class_names=["a   b"])
    assert "a ⌓ b" in labels(figure)
    assert (plot.to_pixels(figure) != plot.to_pixels(without)).any()
    assert not caplog.records


def test_pyplot_and_the_users_style_play_no_part():
    import matplotlib.pyplot as plt

    x, p = images(2), np.array([[0.1, 0.9], [0.7, 0.3]])
    before = dict(matplotlib.rcParams)
    expected = plot.to_pixels(kj.plot_saliency(x, x[..., 0], [0, 1], p, title="t"))
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before
    style = {
        "image.origin": "lower",
        "image.cmap": "jet",
        "image.interpolation": "bicubic",
        "text.color": "red",
        "text.usetex": True,
        "text.parse_math": True,
        "font.family": "no such font",
        "figure.facecolor": "black",
        "figure.dpi": 30,
        "figure.autolayout": True,
        "axes.grid": True,
        "axes.titlesize": 40,
        "lines.marker": "o",
        "lines.color": "red",
    }
    with matplotlib.rc_context(style):
        found = plot.to_pixels(kj.plot_saliency(x, x[..., 0], [0, 1], p, title="t"))
    np.testing.assert_array_equal(found, expected)


def test_threads_draw_at_the_same_time():
    x = images(4)
    names = ["a ⌓", "b", "$c", "鞋"]

    def draw():
        return plot.to_pixels(
            kj.plot_saliency(x, {"m": x[..., 0]}, np.arange(4), class_names=names)
        )

    expected, found = draw(), []
    threads = [threading.Thread(target=lambda: found.append(draw())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(np.array_equal(each, expected) for each in found)


def test_the_figure_is_shown_by_notebooks_saved_and_pickled(tmp_path):
    figure = kj.plot_saliency(images(), images()[..., 0])
    assert figure._repr_png_().startswith(b"\x89PNG")
    for name in ("maps.png", "maps.pdf", "maps.svg"):
        figure.savefig(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    again = pickle.loads(pickle.dumps(figure))
    assert len(again.axes[0].images) == len(figure.axes[0].images)


def test_bad_arguments():
    for wrong, message in (
        ({"x": np.zeros((2, 4))}, "shows images"),
        ({"x": np.zeros((0, 4, 4))}, "expected 1 to 32"),
        ({"x": np.zeros((33, 4, 4))}, "expected 1 to 32"),
        ({"x": np.full((2, 8, 8), np.nan)}, "NaN or infinity"),
        ({"x": np.full((2, 8, 8), 2.0)}, "leave the input range"),
        ({"maps": np.zeros((2, 8, 7))}, "do not fit the images"),
        ({"y": [0]}, "one label per image"),
        ({"y": [0, 3], "class_names": ["a", "b"]}, "`class_names` does not fit"),
        ({"probabilities": np.zeros((3, 2))}, "do not fit 2 images"),
        ({"probabilities": np.full((2, 2), 5.0)}, "leave 0..1"),
        ({"input_range": (1.0, 0.0)}, "empty or reversed"),
    ):
        settings = {"x": np.zeros((2, 8, 8)), "maps": np.zeros((2, 8, 8)), **wrong}
        with pytest.raises(ValueError, match=message):
            kj.plot_saliency(settings.pop("x"), settings.pop("maps"), **settings)


def test_without_the_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib pillow"):
        kj.plot_saliency(images(), images()[..., 0])
