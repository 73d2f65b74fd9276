"""The drawing of the curve: places of its points, against the figures."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from keras_jsigr.evaluation.page.line_chart import Line, line_chart, ticks
from keras_jsigr.evaluation.rate import Rate
from keras_jsigr.evaluation.records import CurvePoint

RADII, KEPT = [0.0, 0.1, 0.4], [90, 50, 10]


@pytest.fixture(scope="module")
def svg():
    points = [
        CurvePoint(epsilon=e, accuracy=Rate(n, 100))
        for e, n in zip(RADII, KEPT, strict=True)
    ]
    lines = [Line("<b>&", points), Line("short", points[:2])]
    text = line_chart(lines, title='"a"', marked=[0.3, 0.3], chances=[0.1, 0.2])
    return ET.fromstring(text)


def places(element):
    return np.array([p.split(",") for p in element.get("points").split()], float)


def test_points_are_where_the_figures_say(svg):
    """Places are affine in radius and accuracy: three points check the map."""
    points = places(svg.find("g[@class='line-0']/polyline"))
    x, y = points[:, 0], points[:, 1]
    assert (x[1] - x[0]) / (x[2] - x[0]) == pytest.approx(0.25, abs=1e-3)
    assert (y[1] - y[0]) / (y[2] - y[0]) == pytest.approx(0.5, abs=1e-3)
    grid = {
        float(line.get("y1")): text.text
        for line, text in zip(
            svg.findall("line[@class='grid']"), svg.findall("text"), strict=False
        )
    }
    top, bottom = min(grid), max(grid)
    assert grid[top] == "100%"
    np.testing.assert_allclose(
        (bottom - y) / (bottom - top), [0.9, 0.5, 0.1], atol=1e-3
    )


def test_band_is_the_interval(svg):
    band = places(svg.find("polygon[@class='band-0']"))
    line = places(svg.find("g[@class='line-0']/polyline"))
    high, low = band[:3], band[:2:-1]
    np.testing.assert_allclose(high[:, 0], line[:, 0])
    scale = (line[2, 1] - line[0, 1]) / 0.8
    rates = [Rate(n, 100) for n in KEPT]
    up = [rate.high - rate.accuracy for rate in rates]
    down = [rate.accuracy - rate.low for rate in rates]
    np.testing.assert_allclose((line[:, 1] - high[:, 1]) / scale, up, atol=1e-3)
    np.testing.assert_allclose((low[:, 1] - line[:, 1]) / scale, down, atol=1e-3)


def test_marks_radius_and_guessing(svg):
    line = places(svg.find("g[@class='line-0']/polyline"))
    (marked,) = svg.findall("line[@class='marked']")
    share = (float(marked.get("x1")) - line[0, 0]) / (line[2, 0] - line[0, 0])
    assert share == pytest.approx(0.75, abs=1e-3)
    assert len(svg.findall("line[@class='chance']")) == 2
    texts = [text.text for text in svg.findall("text")]
    assert {"ε = 0.3", "guessing 10.0 %", "guessing 20.0 %"} <= set(texts)


def test_tooltips_name_the_figures(svg):
    titles = [title.text for title in svg.iter("title")]
    assert len(titles) == 5
    assert titles[1] == "<b>&, ε = 0.1: 50.0 % (95 % interval 40.4\u201359.6 %)"


def test_nothing_leaves_the_drawing(svg):
    width, height = (float(v) for v in svg.get("viewBox").split()[2:])
    for element in svg.iter():
        for name, limit in (("x", width), ("cx", width), ("x2", width), ("y", height)):
            assert 0 <= float(element.get(name, 0)) <= limit


@pytest.mark.parametrize("limit", [1e-6, 0.0313, 0.1, 0.3, 1.0, 7.0, 8.0, 255.0])
@pytest.mark.parametrize("most", [3, 6])
def test_ticks_are_round_and_enough(limit, most):
    found = ticks(limit, most)
    assert found[0] == 0
    assert 2 <= len(found) <= most + 1
    assert found[-1] <= limit * 1.001
    digits = [float(f"{tick:.3g}") for tick in found]
    assert digits == found


def test_draws_one_radius_of_zero():
    point = CurvePoint(epsilon=0.0, accuracy=Rate(1, 2))
    assert "nan" not in line_chart([Line("a", [point])], title="a")
