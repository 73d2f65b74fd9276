"""Adversarial attacks on one compiled engine: `attack(model, x, y) -> x_adv`."""

import warnings
from typing import Any

from keras_jsigr.attacks.apgd import APGD, TargetedAPGD
from keras_jsigr.attacks.base import Attack, AttackContext
from keras_jsigr.attacks.carlini_wagner import CarliniWagner
from keras_jsigr.attacks.cleverhans import CleverHansAttack
from keras_jsigr.attacks.ensemble import LogitsEnsemble
from keras_jsigr.attacks.fab import FAB
from keras_jsigr.attacks.gradient_attack import GradientAttack, StepState
from keras_jsigr.attacks.hopskipjump import HopSkipJump
from keras_jsigr.attacks.images import save_images
from keras_jsigr.attacks.minimum_norm import DeepFool, MinimumNormAttack
from keras_jsigr.attacks.noise import GaussianNoise, UniformNoise
from keras_jsigr.attacks.patch import Patch
from keras_jsigr.attacks.pgd import BIM, FGSM, PGD
from keras_jsigr.attacks.saliency_attack import SaliencyAttack, SmoothSecondOrder, salient_region
from keras_jsigr.attacks.spsa import SPSA
from keras_jsigr.attacks.square import Square
from keras_jsigr.attacks.suite import AttackSuite, AutoAttack
from keras_jsigr.attacks.transfer import (
    DIFGSM,
    MIFGSM,
    NIFGSM,
    SIFGSM,
    TIFGSM,
    VMIFGSM,
    TransferAttack,
)

__all__ = [
    # With gradients.
    "APGD",
    "BIM",
    "FGSM",
    "PGD",
    "TargetedAPGD",
    # The closest point.
    "FAB",
    "CarliniWagner",
    "DeepFool",
    # To fool other models.
    "DIFGSM",
    "LogitsEnsemble",
    "MIFGSM",
    "NIFGSM",
    "SIFGSM",
    "TIFGSM",
    "TransferAttack",
    "VMIFGSM",
    # Without gradients.
    "SPSA",
    "GaussianNoise",
    "HopSkipJump",
    "Square",
    "UniformNoise",
    # Regions and explanations.
    "Patch",
    "SaliencyAttack",
    "SmoothSecondOrder",
    "salient_region",
    # Several in turn, and other libraries.
    "AttackSuite",
    "AutoAttack",
    "CleverHansAttack",
    # Files.
    "save_images",
    # To write one.
    "Attack",
    "AttackContext",
    "GradientAttack",
    "MinimumNormAttack",
    "StepState",
]

_RENAMED = {
    "APGDT": TargetedAPGD,
    "BorrowedCurvature": SmoothSecondOrder,
    "Iterate": StepState,
    "Problem": AttackContext,
    "Suite": AttackSuite,
    "standard": AutoAttack,
}


def __getattr__(name: str) -> Any:
    """Return what has another name now, with a warning, for one release."""
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    new: Any = _RENAMED[name]
    warnings.warn(
        f"`attacks.{name}` is called `attacks.{new.__name__}` now.",
        DeprecationWarning,
        stacklevel=2,
    )
    return new
