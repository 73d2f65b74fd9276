"""What a rule answers."""

from __future__ import annotations

from typing import NamedTuple


class Verdict(NamedTuple):
    """Hold what one rule found; it becomes a `Finding` with the rule's name and title.

    Attributes:
        suspect: Whether the figures are not those of an honest model.
        says: The result in one or two sentences.
        figures: The figures it rests on, by name; finite.
        advice: What to do if it is suspect.

    Example:
        >>> from keras_jsigr.evaluation.masking.verdict import Verdict
        >>> Verdict(False, "All is well.", {"share": 0.0}).advice
        ''
    """

    suspect: bool
    says: str
    figures: dict[str, float]
    advice: str = ""


class NotApplicableError(Exception):
    """Say that a rule has nothing to judge; its finding is "skipped"."""


def percent(share: float) -> str:
    """Write a share, 0..1, as the text does.

    Args:
        share: The number.

    Returns:
        Such as `"12.5 %"`.

    Example:
        >>> from keras_jsigr.evaluation.masking.verdict import percent
        >>> percent(0.125)
        '12.5 %'
    """
    return f"{100 * share:.1f} %"
