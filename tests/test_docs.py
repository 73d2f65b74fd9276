"""The documentation's Python blocks run, its links lead somewhere, its claims are in the tables."""

import functools
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
