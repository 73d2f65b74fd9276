"""The adversary against the model and the objective it is to train with."""

from __future__ import annotations

from typing import Any

from keras_jsigr.penalties import PenaltySettings


def check_adversary(
    adversary: Any, settings: PenaltySettings, regularized: list[int]
) -> None:
    """Refuse an adversary that cannot perturb the inputs a model trains on.

    An adversary without `input_range` or `targeted` is taken as it is.

    Args:
        adversary: An attack with `perturb`.
        settings: The objective.
        regularized: Positions of the regularized inputs.

    Raises:
        TypeError: If it has no `perturb`.
        ValueError: If it works in another range than the training, leads to the
            labels instead of away from them, has noise beside it, or would have to
            perturb several inputs.

    Example:
        >>> from keras_jsigr.attacks import FGSM
        >>> from keras_jsigr.checks.adversary_check import check_adversary
        >>> from keras_jsigr.penalties import PenaltySettings
        >>> check_adversary(FGSM(epsilon=0.1), PenaltySettings(), [0])
    """
    if isinstance(adversary, type):
        raise TypeError(
            f"Got the class {adversary.__name__} as adversary, expected an attack made "
            f"of it, such as {adversary.__name__}(epsilon=0.1)."
        )
    if not callable(getattr(adversary, "perturb", None)):
        raise TypeError(
            f"Got {type(adversary).__name__} as adversary, expected an attack with "
            "`perturb`, such as keras_jsigr.attacks.FGSM(epsilon=0.1)."
        )
    if settings.noise > 0:
        raise ValueError(
            f"An adversary starts at the inputs: got noise={settings.noise} "
            "beside it, expected 0. Attacks have a random start of their own."
        )
    if len(regularized) != 1:
        raise ValueError(
            f"An adversary perturbs one input: got {len(regularized)} "
            "regularized inputs. Choose one with `harden(..., inputs=[name])`."
        )
    given = getattr(adversary, "input_range", None)
    # It clips its points: in another range they leave the ball around the inputs.
    if isinstance(given, tuple | list) and tuple(given) != settings.input_range:
        raise ValueError(
            "The adversary belongs to inputs of another range: got input_range="
            f"{tuple(given)}, expected {settings.input_range} as in the training. "
            f"Pass `input_range={settings.input_range}` to the attack, or the range "
            "of the inputs to `harden`."
        )
    if getattr(adversary, "targeted", False) is True:
        raise ValueError(
            "A targeted adversary makes the model more certain of the labels it "
            "trains on: got targeted=True, expected False. Make it with "
            "`targeted=False`."
        )
