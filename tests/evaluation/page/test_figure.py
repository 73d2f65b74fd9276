"""The picture: it decodes, shows something, and leaves matplotlib as it was."""

import dataclasses
import io
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from keras_jsigr.core.palette import LINES, heat
from keras_jsigr.evaluation.page.figure import png_figure
from keras_jsigr.evaluation.page.panels import draw_bars, drawable


def pixels(reports):
    with Image.open(io.BytesIO(png_figure(reports))) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def shown(image, color):
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((image == wanted).all(-1).sum())


@pytest.fixture(scope="module")
def image(two_reports):
    return pixels(two_reports)


def test_draws_lines_bars_and_matrices(image, two_reports):
    assert image.shape[1] > 1000
    for color in LINES["light"][:2]:
        assert shown(image, color) > 2000
    assert shown(image, LINES["light"][2]) == 0
    at_limit = [r for r in two_reports[1].transfer if r.epsilon == 0.1]
    for record in at_limit:
        assert shown(image, heat(record.accuracy.accuracy, "light").ground) > 1000


def test_bars_are_as_high_as_the_accuracy(report):
    """The tallest bar against the others, in pixels."""
    image = pixels([dataclasses.replace(report, curve=[], transfer=[])])
    wanted = [int(LINES["light"][0][i : i + 2], 16) for i in (1, 3, 5)]
    columns = (image == wanted).all(-1)[:, image.shape[1] // 2 :].sum(0)
    heights = [columns.max()]
    for low, high in ((0.2, 0.55), (0.55, 0.99)):
        a, b = (int(share * len(columns)) for share in (low, high))
        heights.append(int(np.median(columns[a:b][columns[a:b] > 0])))
    clean, first, last = report.clean.accuracy, 0.424, report.robust.accuracy
    assert heights[1] / heights[0] == pytest.approx(first / clean, abs=0.02)
    assert heights[2] / heights[0] == pytest.approx(last / clean, abs=0.02)


def test_attacks_of_one_name_have_a_bar_each(report):
    def bars(names):
        attacks = [
            dataclasses.replace(attack, name=name)
            for attack, name in zip(report.attacks, names, strict=False)
        ]
        axes = Figure().add_subplot()
        draw_bars(axes, [dataclasses.replace(report, attacks=attacks)])
        labels = [text.get_text() for text in axes.get_xticklabels()]
        return labels, [bar.get_x() for bar in axes.containers[-1]]

    labels, places = bars(["PGD", "PGD", "Square"])
    assert labels == ["no attack", "PGD", "PGD", "Square"]
    assert places == bars(["A", "B", "C"])[1]


def test_works_without_optional_parts(bare):
    image = pixels([bare])
    assert shown(image, LINES["light"][0]) > 1000


def test_draws_any_name(make_report):
    names = ["_$\\frac{", "模型\x07\ud800", "$x^2$"]
    reports = [make_report(name, kept=100 + 80 * i) for i, name in enumerate(names)]
    image = pixels(reports)
    assert all(shown(image, color) > 500 for color in LINES["light"][: len(names)])


def test_hostile_names_stay_text(hostile):
    assert shown(pixels([dataclasses.replace(hostile, attacks=[])]), "#0b6570") > 500


def test_replaces_what_the_font_lacks():
    assert drawable("a\n模 ε") == "a ? ε"
    assert drawable("x" * 50, 10) == "x" * 9 + "…"


def test_leaves_matplotlib_alone(report):
    import matplotlib.pyplot as plt

    before = matplotlib.get_backend(), dict(matplotlib.rcParams), plt.get_fignums()
    png_figure([report])
    after = matplotlib.get_backend(), dict(matplotlib.rcParams), plt.get_fignums()
    assert before == after


def test_without_matplotlib_says_what_to_install(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        png_figure([report])


def test_refuses_nothing():
    with pytest.raises(ValueError, match="got no report"):
        png_figure([])
