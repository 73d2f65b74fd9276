"""Adversarial attacks on one compiled engine: `attack(model, x, y) -> x_adv`."""

from keras_jsigr.attacks.attack import Attack
from keras_jsigr.attacks.engine import GradientAttack
from keras_jsigr.attacks.fgsm import FGSM
from keras_jsigr.attacks.iterate import Iterate
from keras_jsigr.attacks.mifgsm import MIFGSM
from keras_jsigr.attacks.pgd import PGD

__all__ = ["FGSM", "MIFGSM", "PGD", "Attack", "GradientAttack", "Iterate"]
