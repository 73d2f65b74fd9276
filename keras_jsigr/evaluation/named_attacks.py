"""Attacks by name, and whatever the user gives as the attacks of an evaluation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, get_args

from keras_jsigr.attacks import FGSM, MIFGSM, PGD, Attack
from keras_jsigr.attacks.attack import Access
from keras_jsigr.attacks.gradient.apgd import APGD
from keras_jsigr.attacks.gradient.apgd_targeted import APGDT
from keras_jsigr.attacks.gradient.bim import BIM
from keras_jsigr.attacks.minimum_norm.carlini_wagner import CarliniWagner
from keras_jsigr.attacks.minimum_norm.deepfool import DeepFool
from keras_jsigr.attacks.minimum_norm.fab import FAB
from keras_jsigr.attacks.queries.hopskipjump import HopSkipJump
from keras_jsigr.attacks.queries.noise import GaussianNoise, UniformNoise
from keras_jsigr.attacks.queries.spsa import SPSA
from keras_jsigr.attacks.queries.square import Square
from keras_jsigr.attacks.transfer.transfer_presets import (
    DIFGSM,
    NIFGSM,
    SIFGSM,
    TIFGSM,
    VMIFGSM,
)
from keras_jsigr.core.settings import choice
from keras_jsigr.evaluation.json_codec import to_json

# What each name stands for.
_NAMED: dict[str, Callable[..., Attack]] = {
    "fgsm": FGSM,
    "bim": BIM,
    "pgd": partial(PGD, steps=50, early_stop=True),
    "apgd-ce": partial(APGD, early_stop=True),
    "apgd-dlr": partial(APGD, loss="dlr", early_stop=True),
    "apgd-t": partial(APGDT, early_stop=True),
    "fab": FAB,
    "fab-t": partial(FAB, target_classes=9),
    "deepfool": DeepFool,
    "carlini-wagner": CarliniWagner,
    "square": Square,
    "spsa": SPSA,
    "hopskipjump": HopSkipJump,
    "uniform-noise": UniformNoise,
    "gaussian-noise": GaussianNoise,
    "mi-fgsm": MIFGSM,
    "ni-fgsm": NIFGSM,
    "di-fgsm": DIFGSM,
    "ti-fgsm": TIFGSM,
    "si-fgsm": SIFGSM,
    "vmi-fgsm": VMIFGSM,
}


def attack_names() -> list[str]:
    """List the names that `named_attack` knows.

    Returns:
        The names.

    Example:
        >>> from keras_jsigr.evaluation.named_attacks import attack_names
        >>> "pgd" in attack_names()
        True
    """
    return list(_NAMED)


def named_attack(name: str, **settings: Any) -> Attack:
    """Make an attack of a name.

    Args:
        name: One of `attack_names()`.
        **settings: Of the attack: `epsilon`, `norm`, `input_range` and so on.

    Returns:
        The attack.

    Raises:
        ValueError: If there is no attack of this name, or a setting is out of range.

    Example:
        >>> from keras_jsigr.evaluation.named_attacks import named_attack
        >>> named_attack("pgd", epsilon=0.1).steps
        50
    """
    advice = "Pass one of these names, 'standard', or an attack object."
    choice("attack", name, tuple(_NAMED), advice=advice)
    return _NAMED[name](**settings)


def attacks_of(
    given: Any,
    *,
    epsilon: float,
    norm: str,
    input_range: tuple[float, float],
    batch_size: int,
    seed: int,
    transfer: bool = False,
    argument: str = "attacks",
) -> list[Attack]:
    """Make the attacks of a threat model of what the user gave.

    Args:
        given: `"standard"`, another name, a suite (anything with `attacks`), an
            attack, or a list of attacks and names.
        epsilon: Radius in input units.
        norm: Of the perturbation.
        input_range: `(low, high)` of valid inputs.
        batch_size: Of the attacks given by name.
        seed: Of the attacks given by name.
        transfer: Whether the examples are for other models: then attacks of another
            radius are welcome, and none stops as soon as its own model is fooled.
        argument: What `given` is called where the user gave it.

    Returns:
        At least one attack, all with this radius, norm and range.

    Raises:
        TypeError: If something else is given.
        ValueError: If a name is unknown, none is given, or an attack belongs to
            another threat model.

    Example:
        >>> from keras_jsigr.attacks import FGSM
        >>> from keras_jsigr.evaluation.named_attacks import attacks_of
        >>> threat = dict(epsilon=0.1, norm="linf", input_range=(0.0, 1.0))
        >>> found = attacks_of(["fgsm", "pgd"], batch_size=64, seed=0, **threat)
        >>> [attack.name for attack in found]
        ['FGSM', 'PGD']
    """
    shared: dict[str, Any] = {
        "norm": norm,
        "input_range": input_range,
        "batch_size": batch_size,
        "seed": seed,
        "verbose": 0,
    }
    if isinstance(given, str) and given == "standard":
        from keras_jsigr.attacks.standard import standard

        given = standard(epsilon, **shared)
    given = getattr(given, "attacks", given)
    if isinstance(given, str | Attack):
        given = [given]
    if not isinstance(given, Sequence) or not given:
        raise TypeError(
            f"`{argument}` is {given!r}, expected 'standard', a suite, or a list of at "
            f"least one attack or name of {attack_names()}."
        )
    made = []
    for attack in given:
        if isinstance(attack, str):
            attack = named_attack(attack, epsilon=epsilon, **shared)
        if not isinstance(attack, Attack):
            raise TypeError(
                f"`{argument}` holds a {type(attack).__name__}, expected attacks "
                "such as keras_jsigr.attacks.PGD(...) or their names."
            )
        if attack.targeted:
            raise ValueError(
                f"{attack.name} is targeted: got targeted=True, expected False. `y` "
                "holds the true classes, which it would make the model predict."
            )
        # Now, and not when the report is made of it after hours.
        choice(f"{type(attack).__name__}.access", attack.access, get_args(Access))
        if not isinstance(attack.name, str) or not attack.name:
            raise TypeError(
                f"`{type(attack).__name__}.name` is {attack.name!r}, expected a name."
            )
        to_json(attack.get_config(), f"{attack.name}.get_config()")
        _check_threat(attack, epsilon, norm, input_range, any_radius=transfer)
        if transfer and getattr(attack, "early_stop", False):
            changed: Any = {"early_stop": False}
            attack = dataclasses.replace(attack, **changed)
        made.append(attack.at(epsilon))
    return made


def _check_threat(
    attack: Attack,
    epsilon: float,
    norm: str,
    input_range: tuple[float, float],
    *,
    any_radius: bool,
) -> None:
    pairs: list[tuple[str, Any, Any]] = [
        ("norm", attack.norm, norm),
        ("input_range", attack.input_range, input_range),
    ]
    if not any_radius and attack.epsilon != math.inf:
        pairs.append(("epsilon", attack.epsilon, epsilon))
    for name, got, expected in pairs:
        if got != expected:
            raise ValueError(
                f"{attack.name} belongs to another threat model: got {name} {got!r}, "
                f"expected {expected!r}. Make it with `{name}={expected!r}`, or "
                "evaluate under its own threat model."
            )
