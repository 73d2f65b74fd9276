"""The page in a real browser: quiet, within its window, and what the script does."""

import base64
import dataclasses
import itertools
import json

import pytest

from keras_jsigr.evaluation.render.html import html_page

pytestmark = pytest.mark.slow

PAGES = ("one", "two", "hostile", "bare")
THEMES = ("light", "dark")
# The lowest contrast of any visible text to what is painted behind it.
CONTRAST = """
const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const luminance = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const [r, g, b, alpha = 1] = parse(getComputedStyle(e).backgroundColor);
    if (alpha === 1) return [r, g, b];
  }
  return [255, 255, 255];
};
let worst = [99, ""];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if (!own || element.disabled || !element.getClientRects().length) continue;
  if (element.closest("script, style, title, option")) continue;
  const style = getComputedStyle(element);
  const color = parse(element.closest("svg") ? style.fill : style.color);
  const [a, b] = [luminance(color), luminance(ground(element))].sort((p, q) => q - p);
  const contrast = (a + 0.05) / (b + 0.05);
  if (contrast < worst[0]) worst = [contrast, element.outerHTML.slice(0, 200)];
}
return worst;
"""


class Browser:
    """One Chromium for all tests of this file."""

    def __init__(self, driver):
        self.driver = driver

    def look(self, theme="light", width=1280, media="", script=True):
        """Set the window up; holds until the next call."""
        features = [{"name": "prefers-color-scheme", "value": theme}]
        phone = width < 500
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": phone}
        for command, settings in (
            ("Emulation.setDeviceMetricsOverride", size),
            ("Emulation.setEmulatedMedia", {"media": media, "features": features}),
            ("Emulation.setScriptExecutionDisabled", {"value": not script}),
        ):
            self.driver.execute_cdp_cmd(command, settings)

    def open(self, path, **look):
        self.look(**look)
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(path.as_uri())

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, script):
        """Wait for a true answer, for ten seconds at most."""
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.driver, 10).until(lambda _: self.run(script))

    def texts(self, selector):
        """The texts of the visible elements."""
        return self.run(
            "return [...document.querySelectorAll(arguments[0])]"
            ".filter((e) => e.getClientRects().length)"
            ".map((e) => e.textContent.trim())",
            selector,
        )

    def press(self, selector, keys):
        """Focus an element and type."""
        (element, *_) = self.driver.find_elements("css selector", selector)
        self.run("arguments[0].focus()", element)
        self.driver.switch_to.active_element.send_keys(keys)

    def network(self, kind):
        """The events of the network since the page was opened."""
        entries = self.driver.get_log("performance")
        events = [json.loads(entry["message"])["message"] for entry in entries]
        return [e for e in events if e["method"] == f"Network.{kind}"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory, open_chromium):
    logs = {"browser": "ALL", "performance": "ALL"}
    profile = tmp_path_factory.mktemp("chromium")
    driver = open_chromium(profile, **{"goog:loggingPrefs": logs})
    yield Browser(driver)
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory, report, two_reports, hostile, bare):
    folder = tmp_path_factory.mktemp("pages")
    reports = {
        "one": [report],
        "two": two_reports,
        "hostile": [hostile, hostile],
        "bare": [bare],
    }
    paths = {name: folder / f"{name}.html" for name in reports}
    for name, shown in reports.items():
        paths[name].write_text(html_page(shown), encoding="utf-8")
    return paths


@pytest.mark.parametrize("name", PAGES)
def test_quiet_and_within_the_window(browser, pages, name):
    for theme, width in itertools.product(THEMES, (390, 1280)):
        check_window(browser, pages, name, theme, width)


def check_window(browser, pages, name, theme, width):
    browser.open(pages[name], theme=theme, width=width)
    assert browser.run("return innerWidth") == width
    assert browser.run("return document.documentElement.scrollWidth") <= width
    browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    sent = browser.network("requestWillBeSent")
    asked = [event["params"]["request"]["url"] for event in sent]
    # chrome: is the browser's own first page, which may still be loading.
    outside = [url for url in asked if not url.startswith(("data:", "chrome:"))]
    assert outside == [pages[name].as_uri()]
    assert browser.driver.get_log("browser") == []
    assert browser.run("return window.pwned === undefined")


@pytest.mark.parametrize("theme", THEMES)
def test_all_text_is_readable(browser, pages, theme):
    for name in ("one", "two"):
        browser.open(pages[name], theme=theme)
        browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
        worst, where = browser.run(CONTRAST)
        assert worst >= 4.5, where


def test_policy_blocks_what_is_added(browser, pages):
    browser.open(pages["one"])
    browser.run(
        "const s = document.createElement('script');"
        "s.textContent = 'window.pwned = 1';"
        "document.body.append(s); const i = new Image(); i.src = 'http://127.0.0.1:9/a';"
        "document.body.append(i); document.body.setAttribute('style', 'color: red')"
    )
    assert browser.run("return window.pwned === undefined")
    refused = [e["message"] for e in browser.driver.get_log("browser")]
    assert len(refused) == 3
    assert all("Content Security Policy" in message for message in refused)
    failed = [e["params"] for e in browser.network("loadingFailed")]
    assert [params["blockedReason"] for params in failed] == ["csp"]


@pytest.mark.parametrize("system", THEMES)
def test_toggle_changes_the_theme_and_back(browser, pages, system):
    browser.open(pages["one"], theme=system)

    def state():
        ground = "return getComputedStyle(document.body).backgroundColor"
        return browser.run(ground), *browser.texts("#theme")

    other = {"light": "dark", "dark": "light"}[system]
    before = state()
    assert before[1] == f"{other.capitalize()} colours"
    browser.press("#theme", "\ue007")
    changed = state()
    assert changed[0] != before[0]
    assert changed[1] == f"{system.capitalize()} colours"
    browser.press("#theme", " ")
    assert state() == before
    browser.look(theme=other)
    # The button said the system's theme: it stays whatever the system does.
    assert state() == before


def test_sorts_a_table_by_keyboard(browser, pages, report):
    browser.open(pages["one"])
    cells = "#examples-table tbody tr > :last-child"
    header = "#examples-table thead th:last-child"
    distances = [f"{e.distance:.4g}" for e in report.examples]
    ordered = sorted(distances, key=float)
    assert browser.texts(cells) == distances != ordered
    for expected, sort in ((ordered, "ascending"), (ordered[::-1], "descending")):
        browser.press(f"{header} button", "\ue007")
        assert browser.texts(cells) == expected
        sorts = browser.run(
            "return [...document.querySelectorAll('#examples-table thead th')]"
            ".map((e) => e.ariaSort)"
        )
        assert sorts == [None] * 5 + [sort]
    browser.press("#examples-table thead th:nth-child(2) button", " ")
    labels = browser.texts("#examples-table tbody td:nth-child(2)")
    assert labels == sorted(labels)
    assert len(labels) == len(report.examples)


def test_sorts_numbers_as_numbers(browser, pages, report):
    browser.open(pages["one"])
    browser.press("#attacks-0 thead th:nth-child(8) button", "\ue007")
    names = browser.texts("#attacks-0 tbody th")
    ordered = sorted(report.attacks, key=lambda attack: attack.seconds)
    assert [name.split(" error: ")[0] for name in names] == [a.name for a in ordered]


def test_sorts_under_a_header_of_two_rows(browser, pages, two_reports):
    browser.open(pages["two"])
    browser.press("#classes-table thead tr:nth-child(2) th:nth-child(1) button", " ")
    names = browser.texts("#classes-table tbody th")
    ordered = sorted(two_reports[0].classes, key=lambda c: c.robust.correct)
    assert names == [c.name for c in ordered]


def test_filters_a_table(browser, pages, report):
    browser.open(pages["one"])
    rows = "#examples-table tbody tr"
    box = '.filter[data-table="examples-table"]'
    count = len(report.examples)
    assert browser.texts(f"{box} output") == [f"{count} of {count} rows"]
    browser.press(f"{box} input", "FAB trouser")
    wanted = [
        e
        for e in report.examples
        if "FAB" in e.attack and "Trouser" in (e.label, e.predicted, e.adversarial)
    ]
    shown = browser.texts(f"{rows} th")
    assert shown == [str(e.index) for e in wanted]
    assert 0 < len(shown) < count
    assert browser.texts(f"{box} output") == [f"{len(shown)} of {count} rows"]
    browser.press(f"{box} input", "\ue009a\ue009\ue003")
    assert len(browser.texts(rows)) == count
    browser.press(f"{box} select", "Shirt")
    labels = browser.texts(f"{rows} td:nth-child(2)")
    assert labels == ["Shirt"] * sum(e.label == "Shirt" for e in report.examples)


# A click that opens another tab, but for the tab.
HELD_CLICK = """
addEventListener("click", (event) => event.preventDefault(), { once: true });
const held = { bubbles: true, cancelable: true, ctrlKey: true };
document.querySelector("#examples-table tbody tr:first-child a")
  .dispatchEvent(new MouseEvent("click", held));
"""


def test_pages_through_examples(browser, pages, report):
    browser.open(pages["one"])
    shown, position = ".example figcaption strong", ".pages output"
    names = [f"Example {e.index}" for e in report.examples]
    assert browser.texts(shown) == names[:3]
    assert browser.texts(position) == ["1 to 3 of 8"]
    assert browser.run("return document.querySelector('.pages button').disabled")
    following = ".pages button:last-child"
    browser.press(following, "\ue007")
    assert browser.texts(shown) == names[3:6]
    browser.press(following, "\ue007")
    assert browser.texts(shown) == names[6:]
    # The end is reached: the focus goes to the other button and not nowhere.
    assert browser.run("return document.activeElement.textContent") == "Previous"
    browser.press(".pages button", "\ue012")
    assert browser.texts(shown) == names[3:6]
    browser.run("addEventListener('hashchange', () => { window.changed = true; })")
    for _ in range(2):
        browser.press("#examples-table tbody tr:first-child a", "\ue007")
        assert browser.texts(shown) == names[:3]
        assert browser.run("return document.activeElement.id") == "example-0-0"
        # The browser tells of the first change later; the second time there is none.
        browser.until("return window.changed")
        browser.press(following, "\ue007")
        assert browser.texts(shown) == names[3:6]
    browser.run(HELD_CLICK)
    assert browser.texts(shown) == names[3:6]
    sizes = "return [...document.images].map((e) => e.complete && e.naturalWidth)"
    assert set(browser.run(sizes)) == {28}


def test_without_script_everything_is_shown(browser, pages, report):
    browser.open(pages["one"], script=False)
    try:
        found = browser.driver.find_elements("css selector", ".example")
        assert [e.is_displayed() for e in found] == [True] * len(report.examples)
        for selector in ("#theme", ".filter", ".pages"):
            found = browser.driver.find_elements("css selector", selector)
            assert not any(element.is_displayed() for element in found)
    finally:
        browser.look()


def test_prints_light_and_unfolded(browser, pages, report):
    browser.open(pages["one"], theme="dark", media="print", width=800)
    ground = browser.run("return getComputedStyle(document.documentElement).colorScheme")
    assert ground == "light"
    ink = browser.run("return getComputedStyle(document.body).color")
    assert ink == "rgb(27, 34, 37)"
    assert browser.texts("#theme, nav, .filter, .pages") == []
    assert len(browser.texts(".example")) == len(report.examples)
    text = browser.run("return document.body.innerText")
    for hidden in ("f00dfeed", "2.21.0", "steps: 105", "8 min 53 s"):
        assert hidden in text
    assert browser.run("return document.documentElement.scrollWidth") <= 800
    pdf = browser.driver.execute_cdp_cmd("Page.printToPDF", {})["data"]
    assert base64.b64decode(pdf).startswith(b"%PDF")
    assert browser.run("return document.querySelectorAll('details[open]').length") == 0


# How much room is left between the texts of a drawing, and to its edges.
ROOM = """
const [drawing] = [...document.querySelectorAll("svg")]
  .filter((e) => e.querySelector(".marked") && e.getClientRects().length);
const outer = drawing.getBoundingClientRect();
const boxes = [...drawing.querySelectorAll("text")].map((e) => e.getBoundingClientRect());
let room = 99;
boxes.forEach((a, i) => {
  room = Math.min(room, a.left - outer.left, outer.right - a.right, a.top - outer.top);
  for (const b of boxes.slice(i + 1)) {
    const across = Math.max(b.left - a.right, a.left - b.right);
    room = Math.min(room, Math.max(across, b.top - a.bottom, a.top - b.bottom));
  }
});
return room;
"""


def test_labels_of_several_radii_leave_room(browser, tmp_path, report):
    """Reports of six radii and three levels of guessing, some of them close."""
    page = tmp_path / "page.html"
    for radii in ((0.05, 0.1, 0.11, 0.12, 0.3, 0.31), (0.1, 0.2), (0.28, 0.3, 0.4)):
        shown = [
            dataclasses.replace(
                report,
                title=f"{radius}",
                threat_model={**report.threat_model, "epsilon": radius},
                chance=(0.1, 0.12, 0.3)[number % 3],
            )
            for number, radius in enumerate(radii)
        ]
        page.write_text(html_page(shown), encoding="utf-8")
        for width in (390, 1280):
            browser.open(page, width=width)
            assert browser.run(ROOM) >= -1.0, (radii, width)


def test_a_table_wider_than_a_phone_says_that_it_goes_on(browser, pages):
    hints = (
        "return [...document.querySelectorAll('.scroll')].filter((e) => e.clientWidth)"
        ".map((e) => [e.scrollWidth > e.clientWidth + 1, e.nextElementSibling.textContent,"
        " e.nextElementSibling.getClientRects().length > 0])"
    )
    browser.open(pages["two"], width=390)
    found = browser.run(hints)
    assert [wide for wide, *_ in found] == [shown for *_, shown in found]
    assert any(wide for wide, *_ in found)
    assert {text for _, text, _ in found} == {"The table goes on to the right."}
    # A window made wider takes the hints back; a table unfolded gets its own.
    browser.look(width=1280)
    browser.until("return document.querySelectorAll('.beyond:not([hidden])').length === 0")
    browser.look(width=390)
    browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
    browser.until("return document.querySelectorAll('.beyond:not([hidden])').length > 0")
    unfolded = browser.run(hints)
    assert any(shown for *_, shown in unfolded)
    assert [wide for wide, *_ in unfolded] == [shown for *_, shown in unfolded]


def test_every_control_is_reached_by_tab(browser, pages):
    browser.open(pages["one"])
    reached = set()
    browser.run("document.activeElement.blur()")
    for _ in range(36):
        browser.driver.switch_to.active_element.send_keys("\ue004")
        kind, outline = browser.run(
            "const e = document.activeElement;return [e.tagName, getComputedStyle(e).outlineStyle]"
        )
        reached.add(kind)
        assert outline != "none", kind
    assert {"A", "BUTTON", "SUMMARY", "INPUT", "SELECT", "DIV"} <= reached
