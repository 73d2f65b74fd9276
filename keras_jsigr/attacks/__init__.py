"""Adversarial attacks on one compiled engine: `attack(model, x, y) -> x_adv`."""

from keras_jsigr.attacks.apgd import APGD, APGDT
from keras_jsigr.attacks.base import Attack
from keras_jsigr.attacks.base import AttackBatch as Problem
from keras_jsigr.attacks.carlini_wagner import CarliniWagner
from keras_jsigr.attacks.cleverhans import CleverHansAttack
from keras_jsigr.attacks.deepfool import DeepFool
from keras_jsigr.attacks.ensemble import LogitsEnsemble
from keras_jsigr.attacks.fab import FAB
from keras_jsigr.attacks.gradient_attack import GradientAttack, Iterate
from keras_jsigr.attacks.hopskipjump import HopSkipJump
from keras_jsigr.attacks.minimum_norm import MinimumNormAttack
from keras_jsigr.attacks.noise import GaussianNoise, UniformNoise
from keras_jsigr.attacks.patch import Patch
from keras_jsigr.attacks.pgd import BIM, FGSM, PGD
from keras_jsigr.attacks.saliency_attack import (
    BorrowedCurvature,
    SaliencyAttack,
    salient_region,
)
from keras_jsigr.attacks.spsa import SPSA
from keras_jsigr.attacks.square import Square
from keras_jsigr.attacks.suite import Suite, standard
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
    "APGDT",
    "BIM",
    "FGSM",
    "PGD",
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
    "BorrowedCurvature",
    "Patch",
    "SaliencyAttack",
    "salient_region",
    # Several in turn, and other libraries.
    "CleverHansAttack",
    "Suite",
    "standard",
    # To write one.
    "Attack",
    "GradientAttack",
    "Iterate",
    "MinimumNormAttack",
    "Problem",
]
