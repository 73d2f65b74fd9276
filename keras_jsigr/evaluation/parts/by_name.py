"""Names that tell apart several attacks of one kind."""

from __future__ import annotations

import itertools
from collections.abc import Container, Sequence
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
        found[free_name(attack.name, found)] = attack
    return found


def free_name(name: str, taken: Container[str]) -> str:
    """Return a name, numbered from two on if it is taken.

    Args:
        name: As wanted.
        taken: What is called something already.

    Returns:
        A name that is not taken.

    Example:
        >>> from keras_jsigr.evaluation.parts.by_name import free_name
        >>> free_name("PGD", ["PGD", "PGD (2)"])
        'PGD (3)'
    """
    # A numbered name, too, may be taken, by whoever made it.
    others = (f"{name} ({number})" for number in itertools.count(2))
    names = itertools.chain([name], others)
    return next(each for each in names if each not in taken)
