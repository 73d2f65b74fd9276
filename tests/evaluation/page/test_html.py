"""The page as text: everything is in it, and nothing of a report becomes markup."""

import base64
import dataclasses
import hashlib
import re
import sys
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from keras_jsigr.evaluation.page.html import html_page
from keras_jsigr.evaluation.page.wording import between, duration, number, percent

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
    rates += [
        rate for record in report.classes for rate in (record.clean, record.robust)
    ]
    for rate in rates:
        assert percent(rate.accuracy) in one.words
        assert between(rate) in one.words
    for record in report.attacks:
        assert f"{number(record.attacked)} {number(record.broken)}" in one.words
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


def test_refuses_nothing():
    with pytest.raises(ValueError, match="got no report"):
        html_page([])


@pytest.mark.parametrize("copies", [1, 2])
def test_works_without_optional_parts(bare, copies):
    page = Page(html_page([bare] * copies))
    assert "90.0 %" in page.words
    assert "No attack was run" in page.words
    assert not page.all("img")
    assert [a["id"] for a in page.all("section")] == [
        "summary",
        "key-figures",
        "details",
    ]


@pytest.mark.parametrize(
    "part", ["transfer", "examples", "curve", "attacks", "findings", "classes"]
)
def test_works_without_one_part(report, part):
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
    first = "Deletion blur, by the map lower 0.250 0.152 to 0.348, 400 examples"
    assert first in page.words
    assert "SSIM PGD, class kept higher not measured 0 examples" in page.words
    assert "The order of the maps is no better than a random one." in page.words
    assert "sanity: ValueError: no weights" in page.words
    assert "attack_steps 20" in page.words


def test_lines_up_the_figures_of_maps(two_reports):
    shorter = dataclasses.replace(
        two_reports[1].saliency, figures=two_reports[1].saliency.figures[1:]
    )
    changed = two_reports[1].with_saliency(shorter)
    words = Page(html_page([two_reports[0], changed])).words
    first = "Deletion blur, by the map lower 0.250 0.152 to 0.348, 400 examples"
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


def test_can_be_saved_with_a_lone_surrogate(hostile):
    assert html_page([hostile]).encode()


def test_policy_allows_only_what_is_inside(two):
    policy = next(
        a["content"]
        for a in two.all("meta")
        if a.get("http-equiv") == "Content-Security-Policy"
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


@pytest.mark.parametrize("name", ["one", "two", "poisoned"])
def test_structure_is_accessible(name, request):
    page = request.getfixturevalue(name)
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
    assert two.words.count("suspect Gradients vanish") == 1
    assert two.words.count("ok Gradients vanish") == 1
    assert "What to do: Attack the logits and not the softmax." in two.words


def test_without_jinja2_says_what_to_install(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match="pip install jinja2"):
        html_page([report])
