"""What a suite of attacks is allowed to do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from keras_jsigr.attacks.attack import Attack


def one_threat(attacks: Iterable[Any]) -> tuple[Attack, ...]:
    """Check that attacks search the same ball.

    Args:
        attacks: Untargeted attacks; those of infinite radius take that of the others.

    Returns:
        The attacks, all of one radius.

    Raises:
        TypeError: If something else than attacks is given.
        ValueError: If there are none, one is targeted, or radius, norm or range differ.

    Example:
        >>> from keras_jsigr.attacks import FGSM, PGD
        >>> from keras_jsigr.attacks.calls.threat import one_threat
        >>> [attack.name for attack in one_threat([FGSM(epsilon=1), PGD(epsilon=1)])]
        ['FGSM', 'PGD']
    """
    try:
        given = list(attacks)
    except TypeError:
        given = [None]
    strange = [item for item in given if not isinstance(item, Attack)]
    if strange:
        raise TypeError(
            f"`attacks` is {attacks!r}, expected a list of attacks. Pass for instance "
            "[APGD(epsilon=0.1), Square(epsilon=0.1)]."
        )
    if not given:
        raise ValueError(
            "`attacks` is empty: expected at least one attack. Use "
            "`standard(epsilon)` for a suite that needs no choice."
        )
    targeted = [attack.name for attack in given if attack.targeted]
    if targeted:
        raise ValueError(
            f"A suite makes a model leave the class `y`: got the targeted {targeted}, "
            "expected attacks with targeted=False. Call targeted attacks themselves."
        )
    limits = {attack.epsilon for attack in given} - {math.inf}
    for name, values in (
        ("epsilon", limits),
        ("norm", {attack.norm for attack in given}),
        ("input_range", {attack.input_range for attack in given}),
    ):
        if len(values) > 1:
            raise ValueError(
                f"The attacks of a suite differ in `{name}`: got {sorted(values)}, "
                "expected one value. Make one suite for each."
            )
    radius = limits.pop() if limits else math.inf
    return tuple(a if a.epsilon == radius else a.at(radius) for a in given)
