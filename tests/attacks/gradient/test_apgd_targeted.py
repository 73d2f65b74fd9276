"""Auto-PGD towards one wrong class after the other."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks.gradient.apgd import APGD
from keras_jsigr.attacks.gradient.apgd_targeted import APGDT
from keras_jsigr.attacks.objectives.losses import misclassified

X = np.full((1, 4), 0.5, "float32")


class Slopes:
    """Five classes: how likely at x and how fast they rise; counts the examples."""

    def __init__(self, behind, slopes):
        self.behind, self.slopes = behind, slopes
        self.examples = tf.Variable(0)

    def __call__(self, x):
        self.examples.assign_add(tf.shape(x)[0])
        along = tf.reduce_sum(x - 0.5, axis=1, keepdims=True)
        return tf.constant(self.behind, x.dtype) + along * tf.constant(
            self.slopes, x.dtype
        )


@pytest.mark.parametrize(
    ("classes", "reached", "early_stop"),
    [(2, False, True), (3, True, True), (3, True, False)],
)
def test_classes_are_tried_in_the_order_of_their_logits(classes, reached, early_stop):
    """Classes 1 and 2 rise to one side; class 3, reached first, to the other."""
    model = Slopes([0.0, -1.0, -2.0, -3.0, -4.0], [0.0, 1.0, 1.0, -60.0, 0.1])
    attack = APGDT(
        epsilon=0.05,
        steps=8,
        target_classes=classes,
        random_start=False,
        early_stop=early_stop,
    )
    z = model(attack(model, X, [0]))
    assert int(tf.argmax(z, axis=1)[0]) == (3 if reached else 0)


def test_only_what_is_still_right_goes_on():
    model = Slopes([0.0, -1.0, -1.5, -3.0, -4.0], [0.0, 30.0, 0.1, 0.1, 0.1])
    attack = APGDT(epsilon=0.05, steps=4, random_start=False, target_classes=4)
    weak = np.repeat(X, 6, axis=0)
    strong = np.full((6, 4), [0.45, 0.45, 0.45, 0.45], "float32")
    x = np.concatenate([strong[:2], weak, strong[2:]])
    attack(model, x, np.zeros(12, int))
    model.examples.assign(0)
    x_adv = attack(model, x, np.zeros(12, int))
    # Once at x; per class four gradients and a last look. The second to fourth class
    # are tried for the six strong ones alone.
    assert int(model.examples) == 12 + 5 * 12 + 3 * 5 * 6
    fooled = misclassified(model(x_adv), tf.one_hot(np.zeros(12, int), 5)).numpy()
    np.testing.assert_array_equal(fooled, np.r_[[0] * 2, [1] * 6, [0] * 4] == 1)


def test_nothing_is_done_for_what_is_wrong_already():
    model = Slopes([0.0, -1.0, -1.5, -3.0, -4.0], [0.0, 30.0, 0.1, 0.1, 0.1])
    attack = APGDT(epsilon=0.05, steps=4)
    wrong = np.full((3, 4), 0.6, "float32")
    attack(model, wrong, [0, 0, 0])
    model.examples.assign(0)
    np.testing.assert_array_equal(attack(model, wrong, [0, 0, 0]), wrong)
    assert int(model.examples) == 3


@pytest.mark.parametrize(("norm", "classes"), [("linf", 2), ("l1", 3)])
def test_few_classes(norm, classes):
    """The number of classes to try is cut, and the loss needs no fourth class."""
    w = np.random.default_rng(3).normal(size=(8, classes)).astype("float32")
    x = np.random.default_rng(4).uniform(0.4, 0.6, (20, 8)).astype("float32")

    def linear(x):
        return (x - 0.5) @ w

    z = linear(x)
    y = np.argmax(z, axis=1)
    # The distance to the nearest of the other classes is known in closed form.
    dual = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
    distance = np.full((20, classes), np.inf)
    for t in range(classes):
        gap = z[np.arange(20), y] - z[:, t]
        slope = np.linalg.norm(w[:, t] - w[:, y].T, dual, axis=1)
        distance[t != y, t] = gap[t != y] / slope[t != y]
    distance = distance.min(axis=1)
    epsilon = float(np.median(distance))
    assert epsilon < 0.4  # The range is farther away.
    x_adv = APGDT(epsilon=epsilon, norm=norm, steps=40)(linear, x, y)
    fooled = np.argmax(linear(x_adv), axis=1) != y
    assert fooled[distance < 0.98 * epsilon].all()
    assert not fooled[distance > epsilon * (1 + 1e-5)].any()


def test_not_weaker_than_one_untargeted_run(cnn, images, labels):
    """On a curved model, with all classes tried."""
    same = {"epsilon": 0.15, "steps": 10}
    rows = tf.one_hot(labels, 5)
    some = misclassified(cnn(APGD(loss="dlr", **same)(cnn, images, labels)), rows)
    attack = APGDT(early_stop=True, **same)
    x_adv = attack(cnn, images, labels)
    more = misclassified(cnn(x_adv), rows)
    assert (more | ~some).numpy().all()
    assert more.numpy().any()
    np.testing.assert_array_equal(x_adv, attack(cnn, images, labels))
    assert np.abs(x_adv - images).max() <= 0.15 + 1e-6


def test_settings():
    attack = APGDT(epsilon=0.1, target_classes=5, steps=20, restarts=2)
    assert attack.name == "APGD-T"
    assert attack.passes == 5 * 20 * 2
    config = attack.get_config()
    assert config["target_classes"] == 5
    assert not {"loss", "targeted"} & set(config)
    assert APGDT.from_config(config) == attack
    assert attack.at(0.2).epsilon == 0.2
    with pytest.raises(ValueError, match="`target_classes` is out of range: got 0"):
        APGDT(epsilon=0.1, target_classes=0)
    with pytest.raises(TypeError, match="targeted"):
        APGDT(epsilon=0.1, targeted=True)
