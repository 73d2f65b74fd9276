"""Reading the settings of the methods."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from networks.nets import Recipe

FOLDER = Path(__file__).parent / "methods"

# In the order of the tables.
ORDER = (
    "plain",
    "noise",
    "input_gradients",
    "jacobian",
    "jacobian_l1",
    "random_selection",
    "interpretation",
    "j_sigr",
    "j_sigr_aligned",
    "j_sigr_noise",
    "j_sigr_long",
    "fgsm_rs",
    "pgd_7",
    "trades_10",
    "j_sigr_fgsm_rs",
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
        recipe: How its networks differ from the plain ones, see `networks.nets`.
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
