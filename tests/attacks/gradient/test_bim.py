"""The basic iterative method is PGD with other defaults."""

import numpy as np
import pytest

from keras_jsigr.attacks import PGD
from keras_jsigr.attacks.gradient.bim import BIM


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_equals_pgd_at_its_settings(cnn, images, labels, norm):
    epsilon = 0.05
    bim = BIM(epsilon=epsilon, norm=norm, steps=5)(cnn, images, labels)
    settings = {"steps": 5, "step_size": epsilon / 5, "random_start": False}
    pgd = PGD(epsilon=epsilon, norm=norm, **settings)(cnn, images, labels)
    np.testing.assert_allclose(bim, pgd, atol=1e-6)
    assert np.abs(bim - images).max() > 0.01


def test_steps_just_reach_the_edge():
    x = np.full((1, 3), 0.5, "float32")
    x_adv = BIM(epsilon=0.1, steps=4)(lambda x: x[:, :2], x, [0])
    np.testing.assert_allclose(x_adv - x, [[-0.1, 0.1, 0.0]], atol=1e-6)


def test_defaults():
    attack = BIM(epsilon=0.2)
    assert attack.name == "BIM"
    assert not attack.random_start
    assert attack.step_length == pytest.approx(0.02)
    assert BIM(epsilon=0.2, step_size=0.1).step_length == 0.1
    assert BIM.from_config(attack.get_config()) == attack
