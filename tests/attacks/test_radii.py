"""Several radii in one call, and an attack moved to another radius."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, MIFGSM, PGD

X = np.random.default_rng(0).uniform(size=(9, 5)).astype("float32")
Y = np.arange(9) % 5
RADII = [0.0, 0.05, 0.2]


def identity(x):
    return x


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_list_equals_single_calls(norm, dtype):
    attack = PGD(epsilon=0.1, norm=norm, steps=3, batch_size=4)
    x = X.astype(dtype)
    together = attack(identity, x, Y, epsilons=RADII)
    single = PGD(epsilon=0.3, norm=norm, steps=3, batch_size=4)
    for epsilon, x_adv in zip(RADII, together, strict=True):
        np.testing.assert_array_equal(x_adv, single.at(epsilon)(identity, x, Y))
        assert x_adv.dtype == dtype


@pytest.mark.parametrize("kind", [FGSM, PGD, MIFGSM])
def test_one_trace_serves_all_radii(kind):
    traces = []

    def model(x):
        traces.append(None)
        return x

    attack = kind(epsilon=0.1)
    attack(model, X, Y)
    first = len(traces)
    attack(model, X, Y, epsilons=RADII)
    attack.at(0.3)(model, X, Y)
    assert len(traces) == first


def test_tensors_give_tensors():
    results = FGSM(epsilon=0.1)(lambda x: x, tf.constant(X), Y, epsilons=RADII)
    assert all(tf.is_tensor(x_adv) for x_adv in results)


def test_at_keeps_the_other_settings():
    attack = MIFGSM(epsilon=0.1, steps=7, momentum=0.5, norm="l2")
    moved = attack.at(0.2)
    assert moved == MIFGSM(epsilon=0.2, steps=7, momentum=0.5, norm="l2")
    assert attack.epsilon == 0.1


def test_a_bad_radius_is_refused():
    with pytest.raises(ValueError, match="epsilon"):
        FGSM(epsilon=0.1)(lambda x: x, X, Y, epsilons=[0.1, -1.0])
    with pytest.raises(ValueError, match="epsilon"):
        FGSM(epsilon=float("inf"))
