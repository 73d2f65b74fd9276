"""The documentation's Python blocks run, its links lead somewhere, its claims are in the tables."""

import functools
import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

import keras
import numpy as np
import pytest
from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser

import keras_jsigr as kj

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_CODE = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
# Where the repository's own pages are on the site and on GitHub.
SITE, FILES = "keras-jsigr.readthedocs.io", "/keras-jsigr/keras-jsigr/blob/main/"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Let pages load few images and train for an epoch, in a folder of their own."""
    load, fit = kj.datasets.load, keras.Model.fit

    def few(*args, **kwargs):
        data = load(*args, **{**kwargs, "verbose": False})
        return replace(data, x_test=data.x_test[:24], y_test=data.y_test[:24])

    @functools.wraps(fit)
    def briefly(self, x=None, y=None, *args, **kwargs):
        if isinstance(x, np.ndarray):
            x, y = x[:1500], y[:1500]
        kwargs |= {"epochs": 1, "verbose": 0} if "epochs" in kwargs else {}
        return fit(self, x, y, *args, **kwargs)

    monkeypatch.setattr(kj.datasets, "load", few)
    monkeypatch.setattr(keras.Model, "fit", briefly)
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_code_blocks_run(page, small):
    keras.utils.set_random_seed(0)
    blocks = Sybil([PythonCodeBlockParser(), SkipParser()], path=str(page.parent)).parse(page)
    for block in blocks:
        block.evaluate()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in (first or second for first, second in LINK.findall(text)):
        url = urlparse(target)
        if url.netloc == SITE:
            path = ROOT / "docs" / url.path.removeprefix("/en/latest/").replace(".html", ".md")
        elif url.path.startswith(FILES):
            path = ROOT / url.path.removeprefix(FILES)
        elif url.scheme:
            continue
        else:
            path = page.parent / url.path if url.path else page
        assert path.exists(), f"{target} of {name_of(page)}"
        if url.fragment and path.suffix == ".md":
            assert url.fragment in anchors(path), f"{target} of {name_of(page)}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


def speedups(network: str, attack: str, *rivals: str) -> list[float]:
    """Return how many times faster an attack is than those of other libraries."""
    cells = json.loads((ROOT / "benchmarks/results/attacks.json").read_text())["cells"]
    rates = {
        key.rpartition("/")[2]: cell["images_per_second"]
        for key, cell in cells.items()
        if key.startswith(f"{network}/{attack}/") and "images_per_second" in cell
    }
    return [rates["keras_jsigr"] / rates[rival] for rival in rivals if rival in rates]


def test_speed_claims_are_in_the_measurements():
    page = " ".join((ROOT / "docs/results/attacks.md").read_text(encoding="utf-8").split())
    others, sizes = ("ART", "Foolbox"), ("", ", batch 8", ", batch 1")
    for network, claim in {
        "reference": r"at least ([\d.]+) times as fast as those of ART and Foolbox on the first",
        "resnet20": r"on the first network, and at least ([\d.]+) times on ResNet-20",
    }.items():
        least = min(
            ratio
            for attack in ("PGD", "MI-FGSM")
            for size in sizes
            if network == "reference" or not size
            for ratio in speedups(network, attack + size, *others)
        )
        (said,) = re.findall(claim, page)
        assert 0 <= least - float(said) < 0.1, claim

    ((low, high, single),) = re.findall(
        r"ours are ([\d.]+) to ([\d.]+) times as fast, and one by one, .*?, ([\d.]+) times", page
    )
    iterative = ("PGD", "MI-FGSM")
    large = sorted(speedups("reference", attack, "cleverhans")[0] for attack in iterative)
    small = [speedups("reference", f"{attack}, batch 1", "cleverhans")[0] for attack in iterative]
    assert [round(ratio, 1) for ratio in large] == [float(low), float(high)]
    assert all(round(ratio, 1) == float(single) for ratio in small)
    assert speedups("reference", "FGSM", "cleverhans")[0] < 1  # "cleverhans is faster"


def test_speed_table_shows_the_measurements():
    cells = json.loads((ROOT / "benchmarks/results/attacks.json").read_text())["cells"]
    page = (ROOT / "docs/results/attacks.md").read_text(encoding="utf-8")
    tables = dict(zip(("reference", "minimum", "resnet20"), tables_of(page), strict=False))
    names = {"20 steps": "", "10 steps": "", "batches of 8": ", batch 8", "one by one": ", batch 1"}
    for network in ("reference", "resnet20"):
        for row in tables[network]:
            attack, _, form = row["attack"].partition(", ")
            if attack not in ("FGSM", "PGD", "MI-FGSM"):
                continue
            for library in ("keras_jsigr", "ART", "Foolbox", "cleverhans"):
                if row[library] == "-":
                    continue
                cell = cells[f"{network}/{attack}{names[form] if form else ''}/{library}"]
                rate, left = re.fullmatch(r"([\d,.]+), ([\d.]+) %", row[library]).groups()
                shown, measured = float(rate.replace(",", "")), cell["images_per_second"]
                assert shown == pytest.approx(measured, rel=0.05, abs=0.05), (
                    row["attack"],
                    library,
                )
                assert float(left) == pytest.approx(100 * cell["accuracy"], abs=0.06)


def test_accuracies_are_in_the_study():
    """Pairs of clean accuracy and worst case, in the README and where a recipe is chosen."""
    study = (ROOT / "docs/results/study.md").read_text(encoding="utf-8")
    known = {
        (row["clean"].split()[0], row["worst case"].split()[0].rstrip("*"))
        for table in tables_of(study)
        for row in table
        if {"clean", "worst case"} <= row.keys()
    }
    assert len(known) > 50
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    said = {
        (row["clean"], row["worst case"].rstrip("*"))
        for table in tables_of(readme)
        for row in table
        if "worst case" in row
    }
    number = r"(\d\d?\.\d)"
    said |= set(re.findall(rf"{number} clean and {number}", readme))
    guide = (ROOT / "docs/how-to/recipes.md").read_text(encoding="utf-8")
    said |= {
        pair
        for row in tables_of(guide)[0]
        for pair in re.findall(rf"{number}, {number}", row["measured"])
    }
    assert len(said) > 12
    assert said <= known, f"not in the study: {sorted(said - known)}"


def tables_of(page: str) -> list[list[dict[str, str]]]:
    """Return the tables of a page, each as rows from its headings to its cells."""
    tables = []
    for block in re.findall(r"(?:^\|.*\|$\n?)+", page, re.MULTILINE):
        head, _, *rows = (
            [cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()
        )
        tables.append([dict(zip(head, row, strict=True)) for row in rows])
    return tables
