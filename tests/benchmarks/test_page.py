"""What the page of the study says of its cells."""

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from baselines import page
from baselines.methods import load
from baselines.rungs import RUNGS


def robust(suite, robust=50.0, images=500):
    return {"clean": 80.0, "robust": robust, "suite": suite, "images": images}


@pytest.mark.parametrize(
    ("suite", "column"), [("standard", "| 50.0 |"), ("APGD-CE, APGD-T", "| 50.0* |")]
)
def test_a_star_tells_that_attacks_are_missing(suite, column):
    table = page.table(RUNGS["relu"], {"robust/j_sigr/0": robust(suite)}, load())
    assert column in table
    assert "80.0*" not in table


def test_a_star_stands_where_one_seed_misses_attacks():
    cells = {
        "robust/j_sigr/0": robust("standard", 40.0),
        "robust/j_sigr/1": robust("APGD-CE, APGD-T", 60.0),
    }
    assert "50.0 (40.0 to 60.0)*" in page.table(RUNGS["relu"], cells, load())


def test_the_images_are_counted():
    cells = {
        "robust/plain/0": robust("standard"),
        "maps/plain/0": {"images": 123},
        "robust/plain/1": robust("standard", images=1000),
    }
    assert page.images_of(cells) == "500 or 1,000"


def test_the_source_that_all_defences_share():
    transfer = {"once": 70.0, "twice": 50.0, "twice, by source": {"plain": 66.6}}
    cells = {"robust/j_sigr/0": robust("standard"), "transfer/j_sigr/0": transfer}
    assert "| 70.0 | 50.0 | 66.6 | - |" in page.table(RUNGS["relu"], cells, load())
    assert page.figure_at({"a": {"b": 0.0}}, ("a", "b")) == 0.0
    assert page.figure_at({}, ("a", "b")) is None


def test_only_what_has_figures_is_drawn(tmp_path):
    cells = {
        "robust/j_sigr/0": robust("standard"),
        "robust/plain/0": robust("standard"),
    }
    links = page.draw(RUNGS["relu"], cells, load(), tmp_path)
    assert "study-relu-frontier.svg" in links
    assert "cost" not in links
    assert [each.name for each in tmp_path.iterdir()] == ["study-relu-frontier.svg"]


def test_who_was_diagnosed_is_said():
    cells = {"robust/fgsm_rs/0": robust("APGD-CE, APGD-T")}
    assert page.findings(cells, load()) == "None of them was diagnosed."
    cells["robust/j_sigr/0"] = robust("standard") | {"suspect": {}}
    said = "Diagnosed: J-SIGR, default."
    assert page.findings(cells, load()) == f"{said} Nothing is suspect."
    cells["robust/j_sigr/1"] = robust("standard") | {"suspect": {"rule": "why"}}
    assert page.findings(cells, load()).splitlines() == [
        f"{said} Suspect is:",
        "",
        "- J-SIGR, default: `rule`: why",
    ]


def test_the_length_of_a_training_is_that_of_its_rung():
    cells = {"robust/plain/0": robust("standard"), "step/plain/0": {"ratio": 1.04}}
    for rung, epochs in (("reference", 15), ("madry", 5), ("tiny", 30)):
        assert f"| plain | 1 | {epochs} | 1.0x |" in page.table(
            RUNGS[rung], cells, load()
        )


def test_what_is_held_out_says_so(tmp_path):
    cells = {"robust/plain/0": robust("standard"), "step/plain/0": {"ratio": 1.0}}
    judged = [page.Judged(RUNGS["relu"], cells, skip) for skip in (0, 3000)]
    page.write(judged, load(), tmp_path)
    _, first, held_out = (tmp_path / "study.md").read_text().split("\n## ")[:3]
    title = RUNGS["relu"].title
    assert first.startswith(f"{title}\n\nEpsilon 0.1, 500 test images. ")
    opening = (
        f"Held out: {title}\n\nEpsilon 0.1, 500 test images after the first 3,000. "
    )
    assert held_out.startswith(opening)
    assert first.count("images/study-") == 2
    assert "images/study-" not in held_out


def test_the_page_is_made_of_the_figures(tmp_path):
    methods = load()
    of = {"suite": "standard", "images": 1000}
    cells = {
        "step/plain/0": {"ratio": 1.0},
        "robust/plain/0": {"clean": 91.0, "robust": 0.0, "suspect": {}, **of},
        "step/j_sigr/0": {"ratio": 2.04},
        "robust/j_sigr/0": {
            "clean": 86.0,
            "robust": 60.0,
            "suspect": {"rule": "why"},
            **of,
        },
        "robust/j_sigr/1": {"clean": 87.0, "robust": 62.0, "suspect": {}, **of},
        "pgd/j_sigr/1": {"pgd": 65.2},
        "maps/j_sigr/0": {"own": 0.4, "teacher": 0.3, "gini": 0.5},
    }
    rung = RUNGS["reference"]
    page.write([page.Judged(rung, cells)], methods, tmp_path)
    text = (tmp_path / "study.md").read_text()
    row = next(
        line for line in text.splitlines() if line.startswith("| J-SIGR, default |")
    )
    figures = "| 86.5 (86.0 to 87.0) | 65.2 | 61.0 (60.0 to 62.0) |"
    assert f"| 2 | 15 | 2.0x {figures}" in row
    assert "| 0.400 | 0.300 | 0.500 |" in row
    assert "J-SIGR, default: `rule`: why" in text
    assert "Epsilon 0.1, 1,000 test images." in text
    for plot in ("study-reference-frontier", "study-reference-cost"):
        svg = (tmp_path / "images" / f"{plot}.svg").read_text()
        assert "2 J-SIGR, default" in re.sub(r"\s+", " ", svg)
        assert "plain: 0.0 at" in svg
    cells["step/j_sigr_long/0"] = {"ratio": 2.0}
    costs = {name: page.cost(cells, method) for name, method in methods.items()}
    known = {name: costs[name] for name in ("plain", "j_sigr", "j_sigr_long")}
    # Forty epochs for fifteen.
    assert known == pytest.approx({"plain": 1, "j_sigr": 2.04, "j_sigr_long": 5.334})
    assert costs["pgd_7"] is None
