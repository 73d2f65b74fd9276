"""What an adversary of the training must share with it."""

import keras
import pytest

import keras_jsigr as kj
from keras_jsigr.attacks import FGSM


def hardened(adversary, **settings):
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    return kj.harden(net, adversary=adversary, probe=False, verbose=0, **settings)


class Bare:
    """An adversary that says nothing of itself."""

    def perturb(self, logits_fn, x, targets, *, seed):
        return x


def test_an_adversary_of_another_range_is_refused():
    message = (
        r"got input_range=\(0\.0, 1\.0\), expected \(0\.0, 255\.0\).*"
        r"Pass `input_range=\(0\.0, 255\.0\)` to the attack"
    )
    with pytest.raises(ValueError, match=message):
        hardened(FGSM(epsilon=8.0), input_range=(0, 255))


def test_an_adversary_of_the_same_range_or_of_none_is_taken():
    for adversary in (FGSM(epsilon=8.0, input_range=(0, 255)), Bare()):
        robust = hardened(adversary, input_range=(0, 255))
        assert robust.adversary is adversary


def test_an_adversary_that_leads_to_the_labels_is_refused():
    with pytest.raises(ValueError, match="got targeted=True, expected False"):
        hardened(FGSM(epsilon=0.1, targeted=True))


def test_an_adversary_needs_perturb():
    with pytest.raises(TypeError, match="Got float as adversary"):
        hardened(0.1)
