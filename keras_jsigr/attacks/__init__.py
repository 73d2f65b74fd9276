"""Adversarial attacks on one compiled engine: `attack(model, x, y) -> x_adv`."""

from keras_jsigr.attacks.attack import Attack
from keras_jsigr.attacks.engine import GradientAttack
from keras_jsigr.attacks.explanations.borrowed_curvature import BorrowedCurvature
from keras_jsigr.attacks.explanations.saliency_attack import SaliencyAttack
from keras_jsigr.attacks.gradient.apgd import APGD
from keras_jsigr.attacks.gradient.apgd_targeted import APGDT
from keras_jsigr.attacks.gradient.bim import BIM
from keras_jsigr.attacks.gradient.fgsm import FGSM
from keras_jsigr.attacks.gradient.pgd import PGD
from keras_jsigr.attacks.minimum_norm.carlini_wagner import CarliniWagner
from keras_jsigr.attacks.minimum_norm.deepfool import DeepFool
from keras_jsigr.attacks.minimum_norm.fab import FAB
from keras_jsigr.attacks.minimum_norm.minimum_norm import MinimumNormAttack
from keras_jsigr.attacks.peers.cleverhans import CleverHansAttack
from keras_jsigr.attacks.queries.hopskipjump import HopSkipJump
from keras_jsigr.attacks.queries.noise import GaussianNoise, UniformNoise
from keras_jsigr.attacks.queries.spsa import SPSA
from keras_jsigr.attacks.queries.square import Square
from keras_jsigr.attacks.regions.patch import Patch
from keras_jsigr.attacks.regions.regions import salient_region
from keras_jsigr.attacks.search.iterate import Iterate
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.standard import standard
from keras_jsigr.attacks.suite import Suite
from keras_jsigr.attacks.transfer.ensemble import LogitsEnsemble
from keras_jsigr.attacks.transfer.mifgsm import MIFGSM
from keras_jsigr.attacks.transfer.transfer_attack import TransferAttack
from keras_jsigr.attacks.transfer.transfer_presets import (
    DIFGSM,
    NIFGSM,
    SIFGSM,
    TIFGSM,
    VMIFGSM,
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
