"""Markdown: tables keep their shape whatever the names are."""

import re

import pytest

from keras_jsigr.evaluation.page.markdown import escape, markdown_page
from keras_jsigr.evaluation.page.wording import between, number, percent


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


def test_shows_every_figure(report):
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


@pytest.mark.parametrize(
    ("text", "safe"),
    [
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
    ],
)
def test_escape(text, safe):
    assert escape(text) == safe


def test_works_without_optional_parts(bare):
    text = markdown_page([bare])
    assert "90.0 %" in text
    assert "Transfer from other models was not measured." in text
    assert len(tables(text)) == 1


def test_refuses_nothing():
    with pytest.raises(ValueError, match="got no report"):
        markdown_page([])
