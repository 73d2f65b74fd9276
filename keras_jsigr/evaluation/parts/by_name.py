"""Names that tell apart several attacks of one kind."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any


def by_name(attacks: Sequence[Any]) -> dict[str, Any]:
    """Give attacks names that tell them apart.

    Args:
        attacks: Attacks with a `name`, several of which may be of one kind.

    Returns:
        The attacks by their name, or, from the second of that name on, a numbered one.

    Example:
        >>> from keras_jsigr.attacks import PGD
        >>> from keras_jsigr.evaluation.parts.by_name import by_name
        >>> list(by_name([PGD(epsilon=0.1), PGD(epsilon=0.1, steps=5)]))
        ['PGD', 'PGD (2)']
    """
    found: dict[str, Any] = {}
    for attack in attacks:
        # Another may be called so already, by whoever made it.
        others = (f"{attack.name} ({number})" for number in itertools.count(2))
        names = itertools.chain([attack.name], others)
        found[next(name for name in names if name not in found)] = attack
    return found
