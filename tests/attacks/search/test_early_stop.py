"""With `early_stop`, examples that were fooled cost nothing any more."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import DIFGSM, MIFGSM, NIFGSM, PGD, SIFGSM

W = np.random.default_rng(3).normal(size=(6, 4)).astype("float32")


class Counting:
    """A bent linear model that counts the rows it was shown."""

    def __init__(self):
        self.rows = tf.Variable(0)

    def __call__(self, x):
        self.rows.assign_add(tf.shape(x)[0])
        return tf.tanh(x @ W) * 3.0


def problem(n=40):
    x = np.random.default_rng(4).uniform(0.2, 0.8, (n, 6)).astype("float32")
    return x, np.argmax(np.tanh(x @ W), axis=-1)


def fooled(x, y):
    return np.argmax(np.tanh(x @ W), axis=-1) != y


@pytest.mark.parametrize("kind", [PGD, MIFGSM])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fools_the_same_examples(kind, norm):
    x, y = problem()
    radius = {"linf": 0.1, "l2": 0.2}[norm]
    attack = kind(epsilon=radius, norm=norm, steps=12, random_start=False)
    patient, hasty = attack, kind(**{**attack.get_config(), "early_stop": True})
    expected = fooled(patient(Counting(), x, y), y)
    assert 0.1 < expected.mean() < 0.9
    assert np.array_equal(fooled(hasty(Counting(), x, y), y), expected)


def test_an_example_stays_where_it_was_first_fooled():
    x, y = problem()
    settings = {"epsilon": 0.1, "random_start": False, "step_size": 0.01}
    long = PGD(**settings, steps=30, early_stop=True)(Counting(), x, y)
    for steps in (3, 6, 12):
        short = PGD(**settings, steps=steps)(Counting(), x, y)
        at_once = fooled(short, y)
        shorter = np.abs(long - x).max(axis=1) <= 0.01 * steps + 1e-6
        assert shorter[at_once].all()


def test_the_model_is_not_asked_about_fooled_examples():
    x, y = problem()
    rows = {}
    for early_stop in (False, True):
        model = Counting()
        attack = PGD(
            epsilon=0.1, steps=20, restarts=3, early_stop=early_stop, batch_size=40
        )
        x_adv = attack(model, x, y)
        model.rows.assign(0)
        again = attack(model, x, y)
        np.testing.assert_array_equal(x_adv, again)
        rows[early_stop] = int(model.rows)
        share = fooled(x_adv, y).mean()
    # All: 20 gradients and one last look, three times, and one look at the inputs.
    assert rows[False] == 40 * (3 * 21 + 1)
    left = round(40 * (1 - share))
    assert left * (3 * 21 + 1) <= rows[True] < rows[False] * (1 - 0.5 * share)


def test_a_misclassified_example_is_returned_as_it_is():
    x, y = problem()
    wrong = (y + 1) % 4
    x_adv = PGD(epsilon=0.1, restarts=2, early_stop=True)(Counting(), x, wrong)
    np.testing.assert_array_equal(x_adv, x)


@pytest.mark.slow
def test_batch_and_order_do_not_matter():
    x, y = problem()
    attack = PGD(epsilon=0.1, steps=8, random_start=False, early_stop=True)
    together = attack(Counting(), x, y)
    apart = np.concatenate([attack(Counting(), x[i : i + 7], y[i : i + 7])
                            for i in range(0, 40, 7)])  # fmt: skip
    np.testing.assert_allclose(together, apart, atol=1e-6)


def test_targeted():
    x, y = problem()
    goal = (y + 1) % 4
    settings = {"epsilon": 0.3, "steps": 15, "random_start": False, "targeted": True}
    slow = PGD(**settings)(Counting(), x, goal)
    fast = PGD(**settings, early_stop=True)(Counting(), x, goal)
    assert (~fooled(slow, goal)).sum() > 5
    assert np.array_equal(fooled(slow, goal), fooled(fast, goal))


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("start", [False, True])
def test_a_model_never_sees_an_empty_batch(steps, start):
    def model(x):
        with tf.control_dependencies([tf.debugging.assert_positive(tf.shape(x)[0])]):
            return tf.identity(x) @ W

    x, _ = problem()
    y = np.argmax(x @ W, axis=-1)
    attack = PGD(epsilon=0.9, steps=steps, random_start=start, early_stop=True,
                 restarts=2 if start else 1)  # fmt: skip
    share = np.mean(np.argmax(attack(model, x, y) @ W, axis=-1) != y)
    assert share == 1 or (steps == 1 and share > 0.5)
    already = attack(model, x, (y + 1) % 4)
    assert steps == 1 or np.array_equal(already, x)


ELSEWHERE = [
    (NIFGSM, {}),
    (SIFGSM, {"scales": 2}),
    (DIFGSM, {"diversity": 1.0}),
]


def strip(x):
    """Wrong between 0.58 and 0.72 only, and everywhere the way on is to the right."""
    t = tf.reduce_mean(x, axis=(1, 2))
    side = tf.stop_gradient(tf.where(tf.abs(t - 0.65) < 0.07, 0.5, -0.5))
    rise = side + t - tf.stop_gradient(t)
    return tf.concat([-rise, rise], axis=1)


@pytest.mark.parametrize(("kind", "tricks"), ELSEWHERE, ids=["NI", "SI", "DI"])
def test_attacks_that_ask_elsewhere_stop_too(kind, tricks):
    x, y = np.full((3, 4, 4, 1), 0.5, "float32"), [0, 0, 0]
    settings = {"epsilon": 0.4, "steps": 8, "step_size": 0.05, **tricks}
    past = kind(**settings)(strip, x, y)
    np.testing.assert_allclose(past, 0.9, atol=1e-6)
    stopped = kind(**settings, early_stop=True)(strip, x, y)
    np.testing.assert_allclose(stopped, 0.6, atol=1e-6)


def test_one_more_pass_per_step_tells_when_to_stop():
    x, y = problem()
    for early_stop in (False, True):
        model = Counting()
        attack = NIFGSM(epsilon=0.1, steps=10, early_stop=early_stop, batch_size=40)
        x_adv = attack(model, x, y)
        model.rows.assign(0)
        np.testing.assert_array_equal(attack(model, x, y), x_adv)
        if not early_stop:
            # One row stands for an empty batch: nothing to judge in the end.
            assert int(model.rows) == 40 * 10 + 1
            share = fooled(x_adv, y).mean()
    assert 0.1 < share < 0.9
    assert fooled(x_adv, y).mean() >= share
    left = round(40 * (1 - fooled(x_adv, y).mean()))
    assert left * 21 <= int(model.rows) < 40 * 21


def test_gradients_without_a_number_are_told_whatever_restart_met_them():
    @tf.custom_gradient
    def rootless(x):
        return x, lambda g: tf.where(x < 0.5, float("nan"), g)

    def model(x):
        return tf.concat([rootless(x), 5.0 + 0.0 * x], axis=1)

    x, y = np.full((200, 1), 0.5, "float32"), np.ones(200, int)
    told = []
    for early_stop in (False, True):
        attack = PGD(epsilon=0.1, steps=1, restarts=2, early_stop=early_stop)
        with pytest.warns(RuntimeWarning, match="NaN or infinite") as caught:
            attack(model, x, y)
        told.append(str(caught[0].message))
    assert told[0] == told[1]
