"""Equality with cleverhans at equal settings."""

import numpy as np
import pytest

from keras_jsigr.attacks import FGSM, MIFGSM, PGD

fgm = pytest.importorskip("cleverhans.tf2.attacks.fast_gradient_method")
mim = pytest.importorskip("cleverhans.tf2.attacks.momentum_iterative_method")
pgd = pytest.importorskip("cleverhans.tf2.attacks.projected_gradient_descent")

NORMS = {"linf": np.inf, "l2": 2}
CASES = [(norm, t) for norm in NORMS for t in (False, True)]
COMMON = {"clip_min": 0.0, "clip_max": 1.0, "sanity_checks": False}


def radius(norm):
    return 0.1 if norm == "linf" else 0.4


@pytest.mark.parametrize(("norm", "targeted"), CASES)
def test_fgsm(cnn, images, labels, norm, targeted):
    y = (labels + 1) % 5 if targeted else labels
    theirs = fgm.fast_gradient_method(
        cnn, images, radius(norm), NORMS[norm], y=y, targeted=targeted, **COMMON
    )
    ours = FGSM(epsilon=radius(norm), norm=norm, targeted=targeted)(cnn, images, y)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(("norm", "targeted"), CASES)
def test_pgd(cnn, images, labels, norm, targeted):
    y = (labels + 1) % 5 if targeted else labels
    epsilon = radius(norm)
    theirs = pgd.projected_gradient_descent(
        cnn,
        images,
        epsilon,
        0.25 * epsilon,
        10,
        NORMS[norm],
        y=y,
        targeted=targeted,
        rand_init=False,
        **COMMON,
    )
    attack = PGD(
        epsilon=epsilon, norm=norm, steps=10, random_start=False, targeted=targeted
    )
    np.testing.assert_allclose(attack(cnn, images, y), theirs, atol=1e-5)


@pytest.mark.parametrize(("norm", "targeted"), CASES)
def test_mifgsm(cnn, images, labels, norm, targeted):
    y = (labels + 1) % 5 if targeted else labels
    epsilon = radius(norm)
    theirs = mim.momentum_iterative_method(
        cnn,
        images,
        epsilon,
        0.1 * epsilon,
        10,
        NORMS[norm],
        y=y,
        targeted=targeted,
        **COMMON,
    )
    attack = MIFGSM(epsilon=epsilon, norm=norm, targeted=targeted)
    np.testing.assert_allclose(attack(cnn, images, y), theirs, atol=1e-5)
