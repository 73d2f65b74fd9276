"""All libraries side by side."""

from __future__ import annotations

import importlib.util

from judges import (
    art_attacks,
    cleverhans_attacks,
    foolbox_attacks,
    ours,
    ours_stopping,
)
from judges.budget import Make

OURS = "keras_jsigr"
LIBRARIES = {
    OURS: ours,
    f"{OURS}, early stop": ours_stopping,
    "ART": art_attacks,
    "Foolbox": foolbox_attacks,
    "cleverhans": cleverhans_attacks,
}
MODULES = {"ART": "art", "Foolbox": "foolbox", "cleverhans": "cleverhans"}


def find(library: str, attack: str) -> tuple[Make | None, str]:
    """Return how to prepare an attack, or why there is no way.

    Args:
        library: A key of `LIBRARIES`.
        attack: Such as `"PGD"`, or `"PGD, batch 8"`: what follows the comma is budget.

    Returns:
        The function or `None`, and the reason or `""`.
    """
    module = MODULES.get(library)
    if module is not None and importlib.util.find_spec(module) is None:
        return None, "not installed"
    part = LIBRARIES[library]
    attack = attack.partition(",")[0]
    if attack in part.MISSING:
        return None, part.MISSING[attack]
    return part.ATTACKS[attack], ""
