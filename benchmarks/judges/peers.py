"""All libraries side by side."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field

from judges import art_attacks, cleverhans_attacks, foolbox_attacks, ours
from judges.budget import Make


@dataclass(frozen=True)
class Library:
    """What a library offers.

    Attributes:
        attacks: How to prepare an attack, by its name.
        missing: Why there is none of a name.
        module: The module to import, or `None` for this package.
    """

    attacks: dict[str, Make]
    missing: dict[str, str] = field(default_factory=dict)
    module: str | None = None


OURS = "keras_jsigr"
NO_STOPPING = set(ours.ATTACKS) - set(ours.STOPPING)
ONE_FORM = dict.fromkeys(NO_STOPPING, "has one form only")
LIBRARIES = {
    OURS: Library(ours.ATTACKS),
    f"{OURS}, early stop": Library(ours.STOPPING, ONE_FORM),
    "ART": Library(art_attacks.ATTACKS, art_attacks.MISSING, "art"),
    "Foolbox": Library(foolbox_attacks.ATTACKS, foolbox_attacks.MISSING, "foolbox"),
    "cleverhans": Library(cleverhans_attacks.ATTACKS, cleverhans_attacks.MISSING, "cleverhans"),
}


def find(library: str, attack: str) -> tuple[Make | None, str]:
    """Return how to prepare an attack, or why there is no way.

    Args:
        library: A key of `LIBRARIES`.
        attack: Such as `"PGD"`, or `"PGD, batch 8"`: what follows the comma is budget.

    Returns:
        The function or `None`, and the reason or `""`.
    """
    found = LIBRARIES[library]
    if found.module is not None and importlib.util.find_spec(found.module) is None:
        return None, "not installed"
    attack = attack.partition(",")[0]
    if attack in found.missing:
        return None, found.missing[attack]
    return found.attacks[attack], ""
