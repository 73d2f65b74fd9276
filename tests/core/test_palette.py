"""Whether text and lines can be told from their grounds, in both themes."""

import pytest

from keras_jsigr.core.palette import (
    COLORS,
    LINES,
    STEPS,
    contrast,
    heat,
    theme_css,
)

THEMES = pytest.mark.parametrize("theme", ["light", "dark"])


def test_contrast_of_known_pairs():
    # Published examples: the lightest grey that reads on white, and pure red.
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)
    assert contrast("#ff0000", "#ffffff") == pytest.approx(4.0, abs=0.005)
    assert contrast("#123456", "#123456") == 1


@THEMES
@pytest.mark.parametrize("ground", ["paper", "surface", "accent-soft", "alarm-soft"])
@pytest.mark.parametrize("text", ["ink", "muted", "accent", "alarm"])
def test_text_is_readable(theme, ground, text):
    assert contrast(COLORS[theme][text], COLORS[theme][ground]) >= 4.5


@THEMES
def test_lines_and_edges_of_controls_are_visible(theme):
    for ground in ("paper", "surface"):
        for color in (*LINES[theme], COLORS[theme]["edge"]):
            assert contrast(color, COLORS[theme][ground]) >= 3


@THEMES
def test_heat_map_is_readable_and_grows_stronger(theme):
    cells = [heat(step / (STEPS - 1), theme) for step in range(STEPS)]
    assert all(contrast(cell.ground, cell.text) >= 4.5 for cell in cells)
    strength = [contrast(cell.ground, COLORS[theme]["paper"]) for cell in cells]
    assert strength == sorted(strength, reverse=True)
    assert strength[0] > 4 * strength[-1]


@pytest.mark.parametrize(("share", "step"), [(0.04, 0.0), (0.06, 0.1), (0.96, 1.0)])
def test_heat_map_rounds_to_the_next_step(share, step):
    assert heat(share, "light") == heat(step, "light")


def test_css_has_every_theme_where_it_belongs():
    css = theme_css()
    blocks = css.split(":root")
    assert len([b for b in blocks if f"--ink: {COLORS['dark']['ink']}" in b]) == 2
    assert f"--ink: {COLORS['light']['ink']}" in css.split("@media print")[1]
    assert css.count("{") == css.count("}")
