"""The colours of both themes, and how well they can be told apart."""

from __future__ import annotations

from typing import Literal, NamedTuple

Theme = Literal["light", "dark"]


# paper < surface: the page and what lies on it; soft: quiet grounds of marked text.
COLORS: dict[Theme, dict[str, str]] = {
    "light": {
        "paper": "#fafaf8",
        "surface": "#ffffff",
        "ink": "#1b2225",
        "muted": "#566267",
        "rule": "#d8dddd",
        "edge": "#828d91",
        "accent": "#0b6570",
        "accent-soft": "#e4f0f1",
        "alarm": "#9c3419",
        "alarm-soft": "#faebe6",
    },
    "dark": {
        "paper": "#13181a",
        "surface": "#1a2023",
        "ink": "#e4e9ea",
        "muted": "#9fadb2",
        "rule": "#323b3f",
        "edge": "#6d7a80",
        "accent": "#67c6d0",
        "accent-soft": "#17343a",
        "alarm": "#f3a088",
        "alarm-soft": "#3a221b",
    },
}


# One line per report; dashes and marks differ too, for those who see no colours.
LINES: dict[Theme, list[str]] = {
    "light": ["#0b6570", "#b0431e", "#6b4ba3", "#7a6200", "#2f6d2f", "#a02c6d"],
    "dark": ["#67c6d0", "#f29a72", "#b9a1ee", "#d9bf4d", "#8fce8a", "#f08fc4"],
}


# The ground of a cell for a share of one and of none.
HEAT: dict[Theme, tuple[str, str]] = {
    "light": ("#f4f8f8", "#0a4a53"),
    "dark": ("#1d2629", "#8fe0e8"),
}


STEPS = 11


class Cell(NamedTuple):
    """Name the colours of one step of the heat map."""

    ground: str
    text: str


def contrast(a: str, b: str) -> float:
    """Measure how well two colours can be told apart, as WCAG 2.2 defines it."""
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


def heat(share: float, theme: Theme) -> Cell:
    """Choose the colours of a heat map's cell."""
    none_lost, all_lost = (_channels(color) for color in HEAT[theme])
    lost = 1 - heat_step(share) / (STEPS - 1)
    mixed = (a + lost * (b - a) for a, b in zip(none_lost, all_lost, strict=True))
    ground = "#" + "".join(f"{round(channel):02x}" for channel in mixed)
    return Cell(ground, max("#000000", "#ffffff", key=lambda c: contrast(c, ground)))


def heat_step(share: float) -> int:
    """Round a share to a step of the heat map."""
    return round(share * (STEPS - 1))


def theme_css() -> str:
    """Write the colours as custom properties of CSS."""
    light, dark = _properties("light"), _properties("dark")
    return (
        f":root {{ {light} }}\n"
        "@media (prefers-color-scheme: dark) {\n"
        f':root:not([data-theme="light"]) {{ {dark} }}\n}}\n'
        f':root[data-theme="dark"] {{ {dark} }}\n'
        f"@media print {{\n:root:root:root {{ {light} }}\n}}\n"
    )


def _properties(theme: Theme) -> str:
    values = dict(COLORS[theme])
    values |= {f"line-{i}": color for i, color in enumerate(LINES[theme])}
    for step in range(STEPS):
        cell = heat(step / (STEPS - 1), theme)
        values[f"heat-{step}"], values[f"heat-text-{step}"] = cell
    pairs = " ".join(f"--{name}: {color};" for name, color in values.items())
    return f"color-scheme: {theme}; {pairs}"


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _luminance(color: str) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in _channels(color))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
