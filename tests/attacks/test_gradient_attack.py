"""With `early_stop`, examples that were fooled cost nothing any more."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

from keras_jsigr import attacks
from keras_jsigr.attacks import (
    APGD,
    DIFGSM,
    FAB,
    FGSM,
    MIFGSM,
    NIFGSM,
    PGD,
    SIFGSM,
    CarliniWagner,
)
from keras_jsigr.attacks.gradient_attack import scaled_gradient
from keras_jsigr.attacks.norms import SPACING, round_towards
from keras_jsigr.core.random import fold_in
from keras_jsigr.core.variables import OWN

W = np.random.default_rng(3).normal(size=(6, 4)).astype("float32")


class Counting:
    """A bent linear model that counts the rows it was shown."""

    def __init__(self):
        self.rows = tf.Variable(0, name=OWN)  # goes on, unlike variables of models

    def __call__(self, x):
        self.rows.assign_add(tf.shape(x)[0])
        return tf.tanh(x @ W) * 3.0


def problem(n=40):
    x = np.random.default_rng(4).uniform(0.2, 0.8, (n, 6)).astype("float32")
    return x, np.argmax(np.tanh(x @ W), axis=-1)


def fooled(x, y):
    return np.argmax(np.tanh(x @ W), axis=-1) != y


def test_fools_the_same_examples():
    for kind in [PGD, MIFGSM]:
        for norm in ["linf" if kind is PGD else "l2"]:
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
        attack = PGD(epsilon=0.1, steps=20, restarts=3, early_stop=early_stop, batch_size=40)
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


@pytest.mark.slow
def test_batch_and_order_do_not_matter():
    x, y = problem()
    attack = PGD(epsilon=0.1, steps=8, random_start=False, early_stop=True)
    together = attack(Counting(), x, y)
    apart = np.concatenate([attack(Counting(), x[i : i + 7], y[i : i + 7])
                            for i in range(0, 40, 7)])  # fmt: skip
    np.testing.assert_allclose(together, apart, atol=1e-6)


@pytest.mark.slow
def test_targeted():
    x, y = problem()
    goal = (y + 1) % 4
    settings = {"epsilon": 0.3, "steps": 15, "random_start": False, "targeted": True}
    slow = PGD(**settings)(Counting(), x, goal)
    fast = PGD(**settings, early_stop=True)(Counting(), x, goal)
    assert (~fooled(slow, goal)).sum() > 5
    assert np.array_equal(fooled(slow, goal), fooled(fast, goal))


def test_a_model_never_sees_an_empty_batch():
    def check(steps, start):
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

    for steps in [1, 5]:
        for start in [steps == 5]:
            check(steps, start)


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


@pytest.mark.slow
def test_attacks_that_ask_elsewhere_stop_too():
    for kind, tricks in ELSEWHERE[::2]:
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


FAR = {"epsilon": 0.9, "verbose": 0}


KINDS = [
    attacks.APGD(restarts=3, early_stop=True, steps=5, **FAR),
    attacks.TargetedAPGD(early_stop=True, steps=5, **FAR),
    attacks.FAB(steps=5, **FAR),
    attacks.HopSkipJump(queries=200, verbose=0),
    attacks.Square(queries=50, **FAR),
    attacks.AttackSuite([attacks.PGD(**FAR), attacks.FGSM(**FAR)]),
]


@pytest.fixture(scope="module")
def relu_net():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize("attack", KINDS, ids=lambda attack: type(attack).__name__)
def test_all_examples_done(relu_net, attack):
    x = np.random.default_rng(0).uniform(size=(6, 8, 8, 1)).astype("float32")
    y = relu_net.predict(x, verbose=0).argmax(-1)
    x_adv = attack(relu_net, x, y)
    assert (relu_net.predict(x_adv, verbose=0).argmax(-1) != y).all()
    already = attack(relu_net, x, (y + 1) % 5)
    assert (relu_net.predict(already, verbose=0).argmax(-1) != (y + 1) % 5).all()


class Lookahead(MIFGSM):
    """Nesterov's gradient (arXiv 1908.06281)."""

    def gradient(self, context, x, *, state, seed):
        ahead = x + self.momentum * self.step_length(context.epsilon) * state
        return super().gradient(context, ahead, state=state, seed=seed)[0], None


class Noisy(PGD):
    stochastic = True

    def transform(self, x, state, seed):
        noise = tf.random.stateless_normal(tf.shape(x), seed, dtype=x.dtype)
        return x + 0.3 * noise


class Decaying(PGD):
    """Steps that shrink; the state holds the length."""

    def start_state(self, context, x):
        return tf.fill([tf.shape(x)[0], 1, 1, 1], self.step_length(context.epsilon))

    def update(self, context, now):
        x = now.x + now.state * now.ball.steepest(now.gradient)
        return now.ball.project(x), now.state / 2


def many(n):
    return np.random.default_rng(9).uniform(size=(n, 8, 8, 1)).astype("float32")


def test_lookahead_in_numpy():
    w = tf.constant(np.random.default_rng(1).normal(size=(4, 3)))
    x0, y = np.random.default_rng(2).uniform(0.4, 0.6, (5, 4)), np.arange(5) % 3
    targets = tf.one_hot(y, 3)
    attack = Lookahead(epsilon=0.1, steps=4, momentum=0.5)

    def network(x):
        return tf.tanh(x @ w) * 3

    result = attack.perturb(network, tf.constant(x0), targets, seed=tf.constant([0, 0]))
    x, m = x0.copy(), 0.0
    for _ in range(4):
        ahead = tf.constant(x + 0.5 * 0.025 * m)
        with tf.GradientTape() as tape:
            tape.watch(ahead)
            loss = tf.nn.softmax_cross_entropy_with_logits(targets, network(ahead))
        g = tape.gradient(loss, ahead).numpy()
        m = 0.5 * m + g / np.abs(g).mean(1, keepdims=True)
        x = np.clip(x + 0.025 * np.sign(m), x0 - 0.1, x0 + 0.1)
    np.testing.assert_allclose(result, x, atol=1e-6)


def test_random_transforms_follow_the_seed(cnn):
    x = many(5)
    settings = {"epsilon": 0.1, "steps": 3, "random_start": False}
    first = Noisy(**settings)(cnn, x)
    np.testing.assert_array_equal(first, Noisy(**settings)(cnn, x))
    assert np.abs(first - Noisy(seed=1, **settings)(cnn, x)).max() > 0.01
    Noisy(restarts=3, **settings)(cnn, x)


def test_update_and_state(cnn):
    x = many(5)
    attack = Decaying(epsilon=0.5, steps=3, step_size=0.02, random_start=False)
    moved = np.abs(attack(cnn, x) - x)
    # Length 0.02 + 0.01 + 0.005 where the sign never changed.
    assert moved.max() <= 0.035 + 1e-6
    assert (np.abs(moved - 0.035) < 1e-5).mean() > 0.5


def test_streams_differ():
    seed = tf.constant([1, 2])
    streams = {tuple(fold_in(seed, n).numpy()) for n in range(100)}
    assert len(streams) == 100


@pytest.mark.slow
def test_apgd_goes_by_the_loss_where_it_is_whatever_the_model_sees(cnn):
    class Seen(APGD):
        def transform(self, x, state, seed):
            return tf.identity(x)  # another tensor with the same numbers

    x = many(6)
    plain = APGD(epsilon=0.05, steps=10)(cnn, x)
    np.testing.assert_array_equal(Seen(epsilon=0.05, steps=10)(cnn, x), plain)


def test_half_precision_leaves_nothing_behind():
    """TensorFlow never forgets a custom gradient, nor the graph that it is of."""
    x = np.full((2, 3), 0.5, "float16")
    before = len(ops.gradient_registry.list())
    FGSM(epsilon=0.1)(lambda x: x, x, [0, 1])
    assert len(ops.gradient_registry.list()) == before


def test_rounding_has_the_gradient_of_a_cast():
    for dtype in ["float16", "bfloat16"]:
        x = tf.constant(np.random.default_rng(0).uniform(-1, 1, 500), tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(x)
            near = round_towards(x, tf.zeros_like(x), tf.as_dtype(dtype))
        np.testing.assert_array_equal(tape.gradient(near, x), np.ones(500))
        exact = tf.cast(near, tf.float32)
        assert (np.abs(exact) <= np.abs(x)).all()
        spacing = 2.0 * SPACING[tf.as_dtype(dtype)]
        assert (np.abs(exact - x) <= spacing * np.abs(x)).all()


X = np.full((3, 2), 0.5, "float32")


ATTACKS = [
    FGSM(epsilon=0.25),
    PGD(epsilon=0.25, steps=4),
    FAB(epsilon=0.25, steps=5),
    CarliniWagner(epsilon=0.5, steps=20, searches=3, learning_rate=0.1),
]


def steep(x):
    """A difference of the first two logits of slope 2000, equal at 0.4."""
    t = tf.cast(x, tf.float16)[:, :1] - tf.constant(0.4, tf.float16)
    return tf.cast(tf.concat([2000.0 * t, tf.zeros_like(t)], axis=1), tf.float32)


@pytest.mark.slow
def test_steep_models_are_attacked():
    """No warning of an infinite gradient either: it would be an error."""
    for attack in ATTACKS:
        for model in [steep, tf.function(steep)]:
            x_adv = attack(model, X, [0, 0, 0])
            assert (x_adv[:, 0] < 0.4).all()


def test_steep_and_flat_examples_of_one_batch():
    def check(wrap, dtype):
        slopes = [2.0**10, 2.0**-26, 3.0]

        @wrap
        def gradient(x):
            half = [[2.0**5], [2.0**-13], [1.0]], [[2.0**5], [2.0**-13], [3.0]]
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(x)
                z = tf.cast(x, dtype)
                for factor in half:
                    z *= tf.constant(factor, dtype)
                z = tf.cast(z, tf.float32)
            return scaled_gradient(tape, z, x, tf.ones_like(z))

        result = gradient(tf.ones((3, 1)))
        np.testing.assert_array_equal(result, np.reshape(slopes, (3, 1)))

    for wrap in [lambda f: f, tf.function]:
        for dtype in [tf.float16, tf.bfloat16, tf.float32]:
            check(wrap, dtype)


def test_no_choice_between_gradients_without_float16():
    def operations(dtype):
        @tf.function
        def gradient(x):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(x)
                z = tf.cast(3.0 * tf.cast(x, dtype), tf.float32)
            return scaled_gradient(tape, z, x, tf.ones_like(z))

        graph = gradient.get_concrete_function(tf.ones((3, 1))).graph
        return {op.type for op in graph.get_operations()}

    choice = {"If", "StatelessIf", "IsFinite"}
    assert operations(tf.float16) & choice
    assert not operations(tf.float32) & choice
    assert not operations(tf.bfloat16) & choice
