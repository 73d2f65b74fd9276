"""Reading the settings of the methods."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from networks import nets
from networks.nets import Recipe

import keras_jsigr as kj

FOLDER = Path(__file__).parent / "methods"

# Of recipes with a preset; spelt out by `at_radius`.
PRESET_KEYS = ("preset", "times", "wider")

# In the order of the tables.
ORDER = (
    "plain",
    "noise",
    "input_gradients",
    "jacobian",
    "jacobian_stronger",
    "jacobian_l1",
    "random_selection",
    "inverted_selection",
    "interpretation",
    "j_sigr",
    "j_sigr_hard",
    "j_sigr_aligned",
    "j_sigr_fast",
    "j_sigr_faithful",
    "j_sigr_balanced",
    "j_sigr_balanced_live",
    "balanced_random",
    "balanced_random_stronger",
    "balanced_jacobian",
    "balanced_jacobian_stronger",
    "balanced_selective",
    "balanced_margin",
    "j_sigr_long",
    "j_sigr_stronger",
    "j_sigr_wide",
    "j_sigr_wide_long",
    "fgsm_rs",
    "pgd_7",
    "trades_10",
    "j_sigr_fgsm_rs",
    "j_sigr_fgsm_rs_long",
    "j_sigr_pgd_7",
)


@dataclass(frozen=True)
class Method:
    """A way of training.

    Attributes:
        name: Of its file.
        title: For tables.
        family: `"undefended"`, `"regularized"` or `"adversarial"`.
        source: Where it is from, or what it is for.
        recipe: How its networks differ from the plain ones, see `at_radius`.
        headline: Whether it gets the whole standard suite and the diagnostics.
        longer: Times as many epochs as the others.
    """

    name: str
    title: str
    family: str
    source: str
    recipe: Recipe
    headline: bool = False
    longer: float = 1.0


def load(folder: Path = FOLDER) -> dict[str, Method]:
    """Read all methods.

    Args:
        folder: Of the files of settings.

    Returns:
        The methods by name, in the order of the tables; further files come last.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.json"))}
    names = [name for name in ORDER if name in files]
    names += [name for name in files if name not in ORDER]
    return {
        name: Method(name, **json.loads(files[name].read_text(encoding="utf-8")))
        for name in names
    }


def at_radius(recipe: Recipe, epsilon: float) -> Recipe:
    """Say what arguments of `harden` a method has at a radius.

    Args:
        recipe: Of a method. `"preset"` names arguments, for `"wider"` times the
            radius; their weights are taken `"times"` that, `"settings"` come over them.
        epsilon: Linf radius, inputs in 0..1.

    Returns:
        The recipe with all of them as `"settings"`. Without a preset, weights grow as
        the loss in a ball does: by `epsilon / nets.EPSILON` where the penalty is a norm
        of gradients, by its square where it is a square.
    """
    settings = recipe.get("settings", {})
    if "preset" in recipe:
        own = {k: v for k, v in recipe.items() if k not in PRESET_KEYS}
        radius = epsilon * recipe.get("wider", 1.0)
        preset = kj.preset(recipe["preset"], epsilon=radius)
        for name in ("jacobian_weight", "selective_weight"):
            preset[name] *= recipe.get("times", 1.0)
        return own | {"settings": preset | settings}
    ratio = epsilon / nets.EPSILON
    if recipe["defence"] != "harden" or ratio == 1.0:
        return recipe
    given = kj.PenaltySettings(**settings)
    squared = {
        "jacobian_weight": given.norm == "squared" or given.form == "separate",
        "selective_weight": given.norm == "squared",
    }
    weights = {
        name: getattr(given, name) * ratio ** (2 if square else 1)
        for name, square in squared.items()
    }
    return recipe | {"settings": settings | weights}
