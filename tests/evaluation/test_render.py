"""The pages of a report: HTML, Markdown, the picture, and their words."""

import base64
import dataclasses
import hashlib
import html
import io
import re
import sys
import types
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import keras_jsigr as kj
from keras_jsigr.evaluation.records import CurvePoint, Rate, TransferRecord
from keras_jsigr.evaluation.render.figures import (
    COLORS,
    LINES,
    STEPS,
    Chart,
    draw_bars,
    drawable,
    heat,
    png_figure,
    theme_css,
)
from keras_jsigr.evaluation.render.html import html_page
from keras_jsigr.evaluation.render.tables import (
    between,
    compared,
    duration,
    labels,
    matrices,
    number,
    percent,
    report_matrices,
    strongest_transfer,
)
from keras_jsigr.evaluation.render.text import escape, markdown_page


def contrast(a, b):
    """The contrast of two colors by WCAG 2.2."""

    def luminance(color):
        c = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_colors_can_be_told_apart():
    for theme in ["light", "dark"]:
        # Published examples: the lightest grey that reads on white, and pure red.
        assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)
        assert contrast("#ff0000", "#ffffff") == pytest.approx(4.0, abs=0.005)
        colors = COLORS[theme]
        for text in ("ink", "muted", "accent", "alarm"):
            for ground in ("paper", "surface", "accent-soft", "alarm-soft"):
                assert contrast(colors[text], colors[ground]) >= 4.5
        for ground in ("paper", "surface"):
            for color in (*LINES[theme], colors["edge"]):
                assert contrast(color, colors[ground]) >= 3
        cells = [heat(step / (STEPS - 1), theme) for step in range(STEPS)]
        assert all(contrast(cell.ground, cell.text) >= 4.5 for cell in cells)
        strength = [contrast(cell.ground, colors["paper"]) for cell in cells]
        assert strength == sorted(strength, reverse=True)
        assert strength[0] > 4 * strength[-1]
        for share, step in ((0.04, 0.0), (0.06, 0.1), (0.96, 1.0)):
            assert heat(share, theme) == heat(step, theme)


def test_css_has_every_theme_where_it_belongs():
    css = theme_css()
    blocks = css.split(":root")
    assert len([b for b in blocks if f"--ink: {COLORS['dark']['ink']}" in b]) == 2
    assert f"--ink: {COLORS['light']['ink']}" in css.split("@media print")[1]
    assert css.count("{") == css.count("}")


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
    assert drawable("a\n模 ε") == "a ? ε"
    assert drawable("x" * 50, 10) == "x" * 9 + "…"


def test_leaves_matplotlib_alone(report):
    import matplotlib.pyplot as plt

    before = matplotlib.get_backend(), dict(matplotlib.rcParams), plt.get_fignums()
    png_figure([report])
    after = matplotlib.get_backend(), dict(matplotlib.rcParams), plt.get_fignums()
    assert before == after


def test_without_a_package_says_what_to_install(report, monkeypatch):
    for module, package, page in (
        ("matplotlib.figure", "matplotlib", png_figure),
        ("jinja2", "jinja2", html_page),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(ImportError, match=f"pip install {package}"):
                page([report])


def test_refuses_nothing():
    for page in (png_figure, html_page, markdown_page):
        with pytest.raises(ValueError, match="got no report"):
            page([])


VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(HTMLParser):
    """Collect elements with their attributes, and all text outside style and script."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self.code, self.open = [], [], {}, []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "dt":
            self.text.append(" ")

    def handle_data(self, data):
        if self.open and self.open[-1] in ("style", "script"):
            self.code[self.open[-1]] = data
        else:
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self):
        return " ".join("".join(self.text).replace("\N{NO-BREAK SPACE}", " ").split())


@pytest.fixture(scope="module")
def one(report):
    return Page(html_page([report]))


@pytest.fixture(scope="module")
def two(two_reports):
    return Page(html_page(two_reports))


@pytest.fixture(scope="module")
def poisoned(hostile):
    return Page(html_page([hostile, hostile]))


def test_shows_every_figure(one, report):
    rates = [report.clean, report.robust]
    rates += [record.accuracy for record in report.attacks]
    rates += [point.accuracy for point in report.curve]
    rates += [record.accuracy for record in report.transfer]
    rates += [rate for record in report.classes for rate in (record.clean, record.robust)]
    for rate in rates:
        assert percent(rate.accuracy) in one.words
        assert between(rate) in one.words
    for record in report.attacks:
        assert f"{number(record.broken)} {number(record.attacked)}" in one.words
        assert duration(record.seconds) in one.words
        assert f"steps {record.config['steps']}" in one.words
    for finding in report.findings:
        assert finding.says in one.words
        for value in finding.figures.values():
            assert number(value) in one.words
    for example in report.examples:
        assert f"Example {example.index}" in one.words
        assert number(example.distance) in one.words
        assert all(data in str(one.all("img")) for data in example.pictures.values())
    for _, value in report.linearized.quantiles:
        assert number(value) in one.words
    for text in (
        "3.21",
        "40.5",
        "2.21.0",
        "f00dfeed",
        "123456",
        "jacobian_weight: 0.01",
    ):
        assert text in one.words
    assert "seed of the evaluation 17" in one.words
    assert "out of memory" in one.words


def test_compares_several(two, two_reports):
    assert "Comparison of models" in two.words
    for report in two_reports:
        for rate in (report.clean, report.robust):
            assert percent(rate.accuracy) in two.words
    assert "Under attack Hardened remains right most often, 41.2 %" in two.words
    lines = [a["class"] for a in two.all("g") if a["class"].startswith("line-")]
    # One line per report in the legend, in the wide and in the narrow drawing.
    assert sorted(lines) == ["line-0"] * 3 + ["line-1"] * 3
    # Both models are sources and targets of one matrix per attack and radius.
    assert len([a for a in two.all("table") if a.get("class") == "heat"]) == 4
    assert two.words.count("white box, ") == 8


def test_works_without_optional_parts_html(bare, report):
    for copies in (1, 2):
        page = Page(html_page([bare] * copies))
        assert "90.0 %" in page.words
        assert "No attack was run" in page.words
        assert not page.all("img")
        shown = [a["id"] for a in page.all("section")]
        assert shown == ["summary", "key-figures", "details"]
    for part in ("transfer", "examples", "curve", "attacks", "findings", "classes"):
        cut = dataclasses.replace(report, **{part: []})
        assert "41.2 %" in Page(html_page([cut, report])).words or part == "attacks"


def test_works_without_pictures(report):
    bare = [dataclasses.replace(one, pictures={}) for one in report.examples]
    page = Page(html_page([dataclasses.replace(report, examples=bare)]))
    assert not page.all("img")
    assert "862" in page.words


def test_shows_errors_and_saliency(report):
    changed = dataclasses.replace(report, errors=["The curve crashed: no memory."])
    page = Page(html_page([changed]))
    assert page.words.count("The curve crashed: no memory.") == 2
    for figure in report.saliency.figures:
        assert f"{figure.metric} {figure.condition}".strip() in page.words
    first = "Deletion blur, by the map 0.250 0.152 to 0.348, 400 examples"
    assert first in page.words
    assert "SSIM PGD, class kept not measured 0 examples higher" in page.words
    assert "The order of the maps is no better than a random one." in page.words
    assert "sanity: ValueError: no weights" in page.words
    assert "attack_steps 20" in page.words


def test_lines_up_the_figures_of_maps(two_reports):
    shorter = dataclasses.replace(
        two_reports[1].saliency, figures=two_reports[1].saliency.figures[1:]
    )
    changed = two_reports[1].with_saliency(shorter)
    words = Page(html_page([two_reports[0], changed])).words
    first = "Deletion blur, by the map 0.250 0.152 to 0.348, 400 examples"
    assert f"{first} not measured" in words
    assert "not measured 0 examples not measured 0 examples" in words


def test_a_page_of_maps_alone_says_nothing_of_robustness(bare, report):
    alone = dataclasses.replace(bare, saliency=report.saliency)
    words = Page(html_page([alone, dataclasses.replace(alone, title="Other")])).words
    assert "Saliency report" in words
    assert "remains right most often" not in words
    assert "Saliency report" not in Page(html_page([report])).words


def test_escapes_everything(poisoned):
    assert len(poisoned.all("script")) == len(poisoned.all("style")) == 1
    for tag, attributes in poisoned.elements:
        assert not any(name.startswith("on") for name in attributes), tag
        assert "style" not in attributes
        links = [attributes.get("href", "#"), attributes.get("src", "data:")]
        assert all(re.match(r"#|data:(image/png;base64,|,|$)", link) for link in links)
    assert poisoned.words.count("<script>window.pwned = 1</script>") > 50
    assert "{{ 7 * 7 }}" in poisoned.words
    assert "no PNG file" in poisoned.words


def test_classes_of_one_name_have_a_row_each(report):
    records = [dataclasses.replace(one, name="crane") for one in report.classes]
    page = Page(html_page([dataclasses.replace(report, classes=records)]))
    assert page.words.count("crane ") == len(records)
    for one in records:
        assert percent(one.robust.accuracy) in page.words


def test_policy_allows_only_what_is_inside(two):
    policy = next(
        a["content"] for a in two.all("meta") if a.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for kind in ("script", "style"):
        digest = hashlib.sha256(two.code[kind].encode()).digest()
        expected = f"'sha256-{base64.b64encode(digest).decode()}'"
        assert rules[f"{kind}-src"] == expected
    assert "unsafe" not in policy


def test_names_no_address_outside(two_reports):
    assert not re.search(r"https?://|@import|url\(", html_page(two_reports))


def test_structure_is_accessible(one, two, poisoned):
    for page in (one, two, poisoned):
        check_structure(page)


def check_structure(page):
    assert not page.open
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("meta")[2]["content"] == "width=device-width, initial-scale=1"
    for landmark in ("header", "nav", "main", "footer"):
        assert len(page.all(landmark)) == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        assert attributes.get("aria-labelledby", ids[0]) in ids
        link = attributes.get("href", "#main")
        assert link == "data:," or link.removeprefix("#") in ids
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(a.get("scope") for a in page.all("th"))
    assert all(a.get("alt") for a in page.all("img"))
    for drawing in page.all("svg"):
        assert "aria-label" in drawing or drawing.get("aria-hidden") == "true"


def test_says_status_in_words(two):
    assert two.words.count("suspect Gradients do not vanish") == 1
    assert two.words.count("ok Gradients do not vanish") == 1
    assert "What to do: Attack the logits and not the softmax." in two.words


RADII, KEPT = [0.0, 0.1, 0.4], [90, 50, 10]


@pytest.fixture(scope="module")
def svg(bare):
    """The drawing of two curves for a wide window."""
    points = [
        CurvePoint(epsilon=e, accuracy=Rate(n, 100)) for e, n in zip(RADII, KEPT, strict=True)
    ]
    threat = {"norm": "linf", "epsilon": 0.3}
    reports = [
        dataclasses.replace(bare, title=title, curve=curve, threat_model=threat, chance=chance)
        for title, curve, chance in (
            ("<b>&", points, 0.1),
            ("short", points[:2], 0.2),
        )
    ]
    html = html_page(reports)
    start = html.index("<svg", html.index('<div class="wide">'))
    return ET.fromstring(html[start : html.index("</svg>", start) + 6])


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
        for line, text in zip(svg.findall("line[@class='grid']"), svg.findall("text"), strict=False)
    }
    top, bottom = min(grid), max(grid)
    assert grid[top] == "100%"
    np.testing.assert_allclose((bottom - y) / (bottom - top), [0.9, 0.5, 0.1], atol=1e-3)


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


def test_labels_of_radii_and_guessing_do_not_overlap():
    """Whatever is marked is named, once: what has no room of its own shares a label."""
    for width in [350, 1040]:
        rng = np.random.default_rng(width)
        for count in (1, 2, 3, 4, 6) * 20:
            marked = sorted({float(f"{v:.2g}") for v in rng.uniform(0.0, 0.4, count)})
            chances = sorted({float(f"{v:.3f}") for v in rng.uniform(0.01, 0.5, count)})
            line = [CurvePoint(epsilon=e, accuracy=Rate(1, 2)) for e in (0.0, 0.4)]
            chart = Chart([("a", line)], marked, chances, width, 300)
            ends = -np.inf
            for text, place, anchor in chart.radius_labels():
                length = 7.0 * len(text)
                start = place - length * {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
                assert start > ends + 5
                ends = start + length
                assert start > -5
                assert ends < width + 5
            named = re.findall(r"[\d.]+", " ".join(t for t, *_ in chart.radius_labels()))
            if not any(" to " in text for text, *_ in chart.radius_labels()):
                assert [float(name) for name in named] == marked
            assert {float(named[0]), float(named[-1])} == {marked[0], marked[-1]}
            levels = chart.level_labels()
            named = re.findall(r"[\d.]+", " ".join(text for text, _ in levels))
            assert len(named) == len({f"{100 * chance:.1f}" for chance in chances})
            heights = [chart.y(level) for _, level in levels]
            assert all(below - above >= 18 for below, above in pairwise(heights))


def test_ticks_are_round_and_enough():
    for limit in (1e-6, 0.0313, 0.1, 0.3, 1.0, 7.0, 8.0, 255.0):
        for most, width in ((3, 350), (6, 1040)):
            point = CurvePoint(epsilon=limit, accuracy=Rate(1, 2))
            found = Chart([("a", [point])], [], [], width, 300).ticks
            assert found[0] == 0
            assert 2 <= len(found) <= most + 1
            assert found[-1] <= limit * 1.001
            assert [float(f"{tick:.3g}") for tick in found] == found


def test_draws_one_radius_of_zero(bare):
    point = CurvePoint(epsilon=0.0, accuracy=Rate(1, 2))
    html = html_page([dataclasses.replace(bare, curve=[point])])
    assert 'class="line-0"' in html
    assert "nan" not in html[html.index('<div class="wide">') :]


def tables(text):
    """Parse the tables: cells are divided by pipes without a backslash."""
    found = []
    for line in text.splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]
            if not found or found[-1] is None:
                found.append([])
            found[-1].append([cell.strip() for cell in cells])
        elif found and found[-1] is not None:
            found.append(None)
    return [table for table in found if table]


def markup(text):
    """Return the characters of a text that no backslash stands before."""
    return re.sub(r"\\.", "", text)


def test_tables_are_rectangular(two_reports):
    found = tables(markdown_page(two_reports))
    assert len(found) > 15
    for table in found:
        assert table[1] == ["---"] * len(table[0])
        assert {len(row) for row in table} == {len(table[0])}


def test_shows_every_figure_markdown(report):
    text = markdown_page([report])
    cells = {cell for table in tables(text) for row in table for cell in row}
    rates = [p.accuracy for p in (*report.curve, *report.attacks, *report.transfer)]
    rates += [rate for c in report.classes for rate in (c.clean, c.robust)]
    for rate in rates:
        assert f"{percent(rate.accuracy)} ({between(rate)})" in cells
    for example in report.examples:
        assert {str(example.index), number(example.distance)} <= cells
    for attack in report.attacks:
        assert {attack.name, number(attack.attacked), number(attack.broken)} <= cells
    assert {"out of memory", "f00dfeed", "0.0789", "3.21", "40.5"} <= cells
    for part in ("model", "threat_model", "data", "settings", "versions"):
        assert {escape(key) for key in getattr(report, part)} <= cells
    for line in report.summary().splitlines():
        assert f"- {escape(line)}" in text


def test_names_cannot_become_markup(hostile):
    text = markdown_page([hostile, hostile])
    assert text.encode()
    for table in tables(text):
        assert {len(row) for row in table} == {len(table[0])}
    bare = markup(text)
    assert not re.search(r"[<>`$*\[\]]", bare)
    assert r"\<script\>" in text
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert all(re.match(r"#{1,3} \S", line) for line in headings)


def test_escape():
    for text, safe in (
        ("a|b", r"a\|b"),
        (r"a\|b", r"a\\\|b"),
        ("- a", r"\- a"),
        ("1. a", r"1\. a"),
        ("two\nlines", "two lines"),
        ("0.05", "0.05"),
        ("---", r"\---"),
        ("plain 12.5 %, (a-b)", "plain 12.5 %, (a-b)"),
        ("=== ", r"\==="),
        ("", ""),
    ):
        assert escape(text) == safe


def test_works_without_optional_parts_markdown(bare):
    text = markdown_page([bare])
    assert "90.0 %" in text
    assert "Transfer from other models was not measured" in text
    assert len(tables(text)) == 1


def test_every_record_has_its_cell(report):
    found = matrices(report.transfer)
    assert [(m.attack, m.epsilon) for m in found] == [
        ("MI-FGSM", 0.05),
        ("MI-FGSM", 0.1),
        ("NI-SI-TI-DIM", 0.05),
        ("NI-SI-TI-DIM", 0.1),
    ]
    for record in report.transfer:
        (matrix,) = [m for m in found if (m.attack, m.epsilon) == (record.attack, record.epsilon)]
        assert matrix.cells[record.source, record.target] == record.accuracy
        assert record.source in matrix.sources
        assert record.target in matrix.targets
    assert sum(len(m.cells) for m in found) == len(report.transfer)


def test_white_box_is_the_diagonal(two_reports):
    ((place, found),) = report_matrices(two_reports)
    assert place is None
    for matrix in found:
        assert matrix.targets == ["Hardened", "Plain"]
        assert matrix.sources == ["Hardened", "Plain", "Wide"]


def test_equal_names_or_other_data_keep_reports_apart(report, two_reports):
    places = [place for place, _ in report_matrices([report, report])]
    assert places == [0, 1]
    other = dataclasses.replace(two_reports[1], data={"fingerprint": "other"})
    places = [place for place, _ in report_matrices([report, other])]
    assert places == [0, 1]


def test_sources_of_one_name_are_one_row_only_if_they_are_one_model(two_reports):
    """Lists of callables are all called "surrogate 1", "surrogate 2", ..."""
    for other in ["other weights", ""]:

        def with_source(report, fingerprint):
            transfer = [
                dataclasses.replace(r, fingerprint=fingerprint) if r.source == "Wide" else r
                for r in report.transfer
            ]
            return dataclasses.replace(report, transfer=transfer)

        one, two = two_reports
        one = with_source(one, "some weights")
        # Of one report alone nobody has to know.
        two = dataclasses.replace(
            two,
            transfer=[
                dataclasses.replace(r, source="Wide") if r.source == "Hardened" else r
                for r in two.transfer
            ],
        )
        apart = [place for place, _ in report_matrices([one, with_source(two, other)])]
        assert apart == [0, 1]
        together = report_matrices([one, with_source(two, "some weights")])
        assert [place for place, _ in together] == [None]
        # Not known of either: so in reports of earlier versions.
        both = [with_source(one, other), with_source(two, other)]
        places = [place for place, _ in report_matrices(both)]
        assert places == ([0, 1] if other == "" else [None])


def test_a_target_without_its_white_box_row_is_not_taken_for_another(report):
    """The rows of the model itself may have crashed; nothing collides then."""
    halves = [
        dataclasses.replace(report, transfer=[r for r in report.transfer if r.source == source])
        for source in ("Plain", "Wide")
    ]
    assert [place for place, _ in report_matrices(halves)] == [0, 1]


def test_no_transfer_no_tables(bare, report):
    assert report_matrices([bare]) == []
    assert len(report_matrices([bare, report])) == 1


def changed(report, **parts):
    return dataclasses.replace(report, **parts)


def pair(foreign, home, epsilon=0.1, total=1000):
    return [
        TransferRecord(
            source=source,
            target="mine",
            attack="PGD",
            epsilon=epsilon,
            accuracy=Rate(correct, total),
        )
        for source, correct in (("mine", home), ("other", foreign))
    ]


def test_says_what_was_attacked_how(report):
    words = report.summary()
    assert "6 attacks, APGD-CE, APGD-T, FAB-T, Square, Transfer (MI-FGSM) and" in words
    assert "at most 0.1 in the L∞ norm" in words
    assert "1,000 examples" in words
    assert "92.0 % are classified rightly (95 % interval 90.2\u201393.5 %)" in words
    assert "41.2 % remain right (95 % interval 38.2\u201344.3 %)" in words
    assert "Attacks that were not run may break more" in words
    assert "not without errors: Square" in words
    one = changed(report, clean=Rate(1, 1))
    assert " on 1 example with" in one.summary()
    assert "<span>1 example</span>" in html_page([one])


def test_compares_with_guessing(make_report):
    for kept, words in (
        (412, "Guessing would give 15.0 %"),
        (150, "Guessing would do as well: 15.0 %"),
        (14, "Guessing would be right more often: 15.0 %"),
    ):
        assert words in make_report(kept=kept).summary()


def test_says_what_transfer_means(report):
    for foreign, home, words in (
        (700, 430, "Access makes the attack stronger, as it should."),
        (430, 700, "gradients mislead, and the accuracy under attack is overestimated"),
        (430, 440, "access makes no clear difference"),
    ):
        assert words in changed(report, transfer=pair(foreign, home)).summary()


def test_the_union_of_all_sources_is_no_match_for_one_attack(report):
    """Each source is weaker than access; only all of them together are not."""
    for marked in [True, False]:
        shares = {"mine": 430, "one": 500, "two": 520, "ensemble": 540}
        alone = [
            TransferRecord(
                source=source,
                target="mine",
                attack="PGD",
                epsilon=0.1,
                accuracy=Rate(correct, 1000),
            )
            for source, correct in shares.items()
        ]
        # Earlier versions did not mark the row.
        union = dataclasses.replace(
            alone[0], source="any surrogate", accuracy=Rate(300, 1000), union=marked
        )
        found = changed(report, transfer=[*alone, union])
        assert strongest_transfer(found).source == "any surrogate"
        assert strongest_transfer(found, single=True).source == "one"
        words = found.summary()
        assert "30.0 % right at worst (PGD against any surrogate)" in words
        assert "best single source 50.0 % (PGD against one); with access" in words
        assert "Access makes the attack stronger, as it should." in words
        assert "mislead" not in words
        # Who calls a model so is not misunderstood.
        only = changed(report, transfer=[alone[0], dataclasses.replace(union, union=False)])
        assert strongest_transfer(only, single=True).source == "any surrogate"
        assert "gradients mislead" in only.summary()


def test_transfer_below_the_suite_lowers_the_claim(report):
    words = changed(report, transfer=pair(300, 430)).summary()
    assert "its accuracy under attack is at most 30.0 %" in words
    words = changed(report, transfer=pair(413, 430)).summary()
    assert "at most 41.3 %" not in words


def test_transfer_at_the_radius_of_the_threat_model_counts(report):
    transfer = pair(100, 90, epsilon=0.3) + pair(700, 430)
    assert strongest_transfer(changed(report, transfer=transfer)).epsilon == 0.1
    larger = changed(report, transfer=pair(100, 90, epsilon=0.3))
    assert "within 0.3 leave 10.0 %" in larger.summary()
    assert "under attack is at most" not in larger.summary()


def test_says_what_diagnostics_found(make_report):
    good, bad = make_report(), make_report(bad=True)
    assert "Of 2 rules of the diagnostics none found anything suspect" in good.summary()
    assert "1 found something suspect" in bad.summary()
    assert "In doubt: gradients do not vanish." in bad.summary()
    assert "may be less robust than the figures say" in bad.summary()
    skipped = [f for f in good.findings if f.status == "skipped"]
    only = changed(good, findings=skipped)
    assert "The diagnostics could not be run" in only.summary()


def test_says_what_is_missing(bare, report):
    words = bare.summary()
    assert "No attack was run" in words
    assert "was not measured: pass `surrogates`" in words
    assert "No diagnostics were run." in words
    broken = changed(report, errors=["The curve crashed."])
    assert "Not everything worked: The curve crashed." in broken.summary()


def test_compared_ranks_and_warns(make_report):
    close = [make_report("A", kept=400), make_report("B", kept=412)]
    words = " ".join(compared(close))
    assert "Under attack B remains right most often, 41.2 % of the time; A 40.0 %" in words
    assert "The intervals of B and A overlap" in words
    far = " ".join(compared([make_report("A", kept=100), make_report("B", kept=412)]))
    assert "overlap" not in far
    other = changed(close[1], threat_model={"norm": "l2", "epsilon": 0.1})
    words = " ".join(compared([close[0], other]))
    assert "do not compare directly" in words
    assert "most often" not in words
    assert compared([close[0]]) == []


def test_labels_are_unique(make_report):
    report = make_report("A")
    assert labels([report, make_report("B")]) == ["A", "B"]
    titled = changed(report, title="Another")
    assert labels([report, titled]) == ["A", "Another"]
    assert labels([report, report]) == ["1. A", "2. A"]
    twin = changed(make_report("B"), title="A")
    assert labels([report, twin]) == ["A", "B"]


def test_a_report_in_a_notebook(report, monkeypatch):
    figure = report.plot()
    assert [axes.get_title(loc="left") for axes in figure.axes][:1] == ["Accuracy by radius"]
    shown = report._repr_html_()
    (source,) = re.findall(r'srcdoc="([^"]*)"', shown)
    assert html.unescape(source) == html_page([report])
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert report._repr_html_() is None


def test_a_report_as_a_data_frame(report):
    pandas = pytest.importorskip("pandas")
    frame = report.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["name"]) == ["clean", *(a.name for a in report.attacks), "worst case"]
    assert frame["accuracy"].iloc[-1] == report.robust.accuracy


def test_plot_history():
    logs = {
        **{"loss": [2.0, 1.0], "task_loss": [1.0, 0.8], "jacobian_penalty": [9.0, 1.0]},
        **{"accuracy": [0.2, 0.6], "val_robust_accuracy": [0.1, 0.3], "learning_rate": [1, 1]},
    }
    figure = kj.plot_history(types.SimpleNamespace(history=logs), title="$x$")
    drawn = {
        axes.get_title(loc="left"): {
            line.get_label(): list(line.get_ydata()) for line in axes.lines
        }
        for axes in figure.axes
    }
    assert drawn == {
        "accuracy": {n: logs[n] for n in ("accuracy", "val_robust_accuracy")},
        "loss": {n: logs[n] for n in ("loss", "task_loss")},
        "penalty": {"jacobian_penalty": [9.0, 1.0]},
    }
    with pytest.raises(ValueError, match="Nothing to draw"):
        kj.plot_history({"lr": [1.0]})
    with pytest.raises(TypeError, match="got list"):
        kj.plot_history([1.0])
