"""What a call takes and gives: kinds, batches, traces, seeds, restarts."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, MIFGSM, PGD, SPSA, Square
from keras_jsigr.attacks.objectives.losses import attack_loss, misclassified

RNG = np.random.default_rng(5)


def many(n):
    return np.random.default_rng(6).uniform(size=(n, 8, 8, 1)).astype("float32")


class Counted:
    """A model that counts how often Python runs it."""

    def __init__(self, model):
        self.model, self.runs = model, 0

    def __call__(self, x):
        self.runs += 1
        return self.model(x, training=False)


@pytest.mark.parametrize("attack", [FGSM(epsilon=0.1), PGD(epsilon=0.1, steps=3)])
def test_one_trace_for_all_batches(cnn, attack):
    model = Counted(cnn)
    attack(model, many(7), np.zeros(7, int))
    runs = model.runs
    for n in (1, 7, 300):
        assert attack(model, many(n), np.zeros(n, int)).shape == (n, 8, 8, 1)
    assert model.runs == runs
    attack(model, many(7))
    runs = model.runs
    attack(model, many(300))
    assert model.runs == runs


def test_bound_methods_are_kept_with_their_model(cnn):
    class Wrapper:
        runs = 0

        def logits(self, x):
            self.runs += 1
            return cnn(x)

    wrapper, attack = Wrapper(), FGSM(epsilon=0.1)
    attack(wrapper.logits, many(2), [0, 0])
    runs = wrapper.runs
    attack(wrapper.logits, many(3), [0, 0, 0])
    assert wrapper.runs == runs


def test_batches_do_not_change_the_result(cnn):
    x = many(10)
    whole = MIFGSM(epsilon=0.1)(cnn, x)
    parts = MIFGSM(epsilon=0.1, batch_size=3)(cnn, x)
    np.testing.assert_allclose(whole, parts, atol=1e-6)


def test_weights_may_move_between_calls(make_cnn):
    model, attack, x = make_cnn(1), FGSM(epsilon=0.1), many(4)
    attack(model, x)
    model.set_weights([w[..., ::-1] * 0.5 + 0.1 for w in model.get_weights()])
    fresh = FGSM(epsilon=0.1)(model, x)
    np.testing.assert_array_equal(attack(model, x), fresh)


@pytest.mark.parametrize(
    "view",
    [lambda m: m, lambda m: m.__call__, lambda m: lambda x: m(x)],
    ids=["model", "method", "lambda"],
)
def test_models_can_be_collected(make_cnn, view):
    attack, model = PGD(epsilon=0.1, steps=2), make_cnn()
    attack(view(model), many(2))
    dead = weakref.ref(model)
    del model
    gc.collect()
    assert dead() is None


@pytest.mark.slow
def test_callables_without_weak_references_or_hash(cnn):
    class Slots:
        __slots__ = ("model",)

        def __call__(self, x):
            return self.model(x)

    class Unhashable:
        __hash__ = None

        def __call__(self, x):
            return cnn(x)

    slots, x = Slots(), many(2)
    slots.model = cnn
    expected = FGSM(epsilon=0.1)(cnn, x)
    for model in (slots, Unhashable(), lambda x: cnn(x), lambda x: {"logits": cnn(x)}):
        np.testing.assert_allclose(FGSM(epsilon=0.1)(model, x), expected, atol=1e-6)


def test_kinds(cnn):
    x, attack = many(3), FGSM(epsilon=0.1)
    x_adv = attack(cnn, x)
    tensor = attack(cnn, tf.constant(x), tf.argmax(cnn(x), axis=-1))
    assert tf.is_tensor(tensor)
    np.testing.assert_array_equal(x_adv, tensor)
    np.testing.assert_array_equal(attack(cnn, tf.Variable(x)), tensor)


def test_label_forms(cnn):
    x, y, attack = many(6), np.array([0, 1, 2, 3, 4, 0]), FGSM(epsilon=0.1)
    expected = attack(cnn, x, y)
    rows, tensor = np.eye(5)[y], tf.constant(y)
    for form in (y[:, None], rows, y.astype("float32"), list(y), tensor):
        np.testing.assert_array_equal(attack(cnn, x, form), expected)


def test_no_labels_means_own_decision(cnn):
    x = many(6)
    y = np.argmax(cnn(x), axis=-1)
    attack = PGD(epsilon=0.2)
    np.testing.assert_array_equal(attack(cnn, x), attack(cnn, x, y))


def test_epsilon_zero_returns_a_copy(cnn):
    x = many(2)
    for method in (FGSM, PGD, MIFGSM):
        result = method(epsilon=0)(cnn, x)
        np.testing.assert_array_equal(result, x)
        assert not np.shares_memory(result, x)


def test_seeds(cnn):
    x = many(6)

    def run(seed):
        return PGD(epsilon=0.1, steps=2, step_size=0.01, seed=seed)(cnn, x)

    first = run(0)
    np.testing.assert_array_equal(first, run(0))
    assert np.abs(first - run(1)).max() > 0.01
    # Batches draw different numbers.
    same = np.concatenate([x[:1], x[:1]])
    two = PGD(epsilon=0.1, steps=1, step_size=0.01, batch_size=1)(cnn, same)
    assert np.abs(two[0] - two[1]).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_restarts_are_never_weaker(make_cnn, targeted, loss):
    model, x = make_cnn(3, scale=4.0), many(64)
    y = (np.argmax(model(x), axis=-1) + targeted) % 5
    settings = dict(epsilon=0.03, steps=2, loss=loss, targeted=targeted)

    def strength(restarts):
        z = model(PGD(restarts=restarts, **settings)(model, x, y))
        targets = tf.one_hot(y, 5)
        value = attack_loss(z, targets, loss).numpy()
        hit = misclassified(z, targets).numpy()
        return (~hit, -value) if targeted else (hit, value)

    (hit1, value1), (hit5, value5) = strength(1), strength(5)
    assert (hit5 | ~hit1).all()
    same = hit1 == hit5
    assert (value5 >= value1 - 1e-5)[same].all()
    assert (value5 > value1 + 1e-4).any()


def test_success_is_never_repaired():
    """A ring: wrong at a distance of 0.1 to 0.2 only, and steps that jump across."""

    def ring(x):
        d = x[:, :1] - 0.5
        # The loss keeps growing with d, the decision flips only inside the ring.
        wrong = tf.cast((d > 0.1) & (d < 0.2), x.dtype)
        rising = tf.concat([-0.01 * d, 0.01 * d], axis=1)
        return rising + (2 * wrong - 1) * tf.constant([[-1.0, 1.0]])

    x = np.full((2, 1), 0.5, "float32")
    attack = PGD(epsilon=0.4, steps=3, step_size=0.15, random_start=False)
    x_adv = attack(ring, x, [0, 0])
    np.testing.assert_allclose(x_adv, 0.65, atol=1e-6)
    targets = tf.one_hot([0, 0], 2)
    last = attack.perturb(ring, tf.constant(x), targets, seed=tf.constant([0, 0]))
    np.testing.assert_allclose(last, 0.9, atol=1e-6)
    # Wrong before the attack: wrong after it, whatever the random start.
    start = np.full((20, 1), 0.65, "float32")
    x_adv = PGD(epsilon=0.3, steps=1, step_size=1e-3)(ring, start, np.zeros(20))
    assert misclassified(ring(x_adv), tf.one_hot(np.zeros(20, int), 2)).numpy().all()


def test_targeted_lowers_the_loss_of_the_target(cnn):
    x, y = many(30), np.full(30, 2)
    before = attack_loss(cnn(x), tf.one_hot(y, 5)).numpy()
    for method in (FGSM, PGD, MIFGSM):
        x_adv = method(epsilon=0.05, targeted=True)(cnn, x, y)
        after = attack_loss(cnn(x_adv), tf.one_hot(y, 5)).numpy()
        assert (after < before).all()


def test_progress(cnn, capsys):
    x = many(8)
    quick = PGD(epsilon=0.1, batch_size=1, steps=2)
    quick(cnn, x)
    assert not capsys.readouterr().out
    PGD(epsilon=0.1, batch_size=1, steps=20)(cnn, x)
    assert "8/8" in capsys.readouterr().out
    PGD(epsilon=0.1, batch_size=1, steps=20, verbose=0)(cnn, x)
    assert not capsys.readouterr().out
    FGSM(epsilon=0.1, verbose=1)(cnn, x)
    assert "1/1" in capsys.readouterr().out


def test_nan_gradients_are_told():
    def cusp(x):
        return tf.concat([tf.sqrt(x - 0.5), x], axis=1)

    x = np.array([[0.5], [0.7]], "float32")
    with pytest.warns(RuntimeWarning, match="1 of 2 examples"):
        x_adv = FGSM(epsilon=0.1)(cusp, x, [0, 0])
    assert np.isfinite(x_adv).all()
    keras.backend.clear_session()


def outside(x):
    """A classifier that is no code of TensorFlow's."""
    return np.asarray(x).reshape(len(x), -1) @ np.eye(4, 3, dtype="float32")


def test_code_that_is_not_of_tensorflow():
    x = RNG.uniform(0.4, 0.6, (6, 2, 2, 1)).astype("float32")
    y = outside(x).argmax(-1)
    for attack in (Square(epsilon=0.4, queries=200), SPSA(epsilon=0.4, steps=5)):
        x_adv = attack(lambda v: tf.numpy_function(outside, [v], tf.float32), x, y)
        assert np.mean(outside(x_adv).argmax(-1) == y) < 0.5


@pytest.mark.parametrize("attack", [PGD(epsilon=0.1), Square(epsilon=0.1, queries=5)])
def test_how_to_wrap_it_is_told(attack):
    x = RNG.uniform(0.4, 0.6, (6, 2, 2, 1)).astype("float32")
    with pytest.raises(TypeError, match=r"cannot be compiled.*numpy_function"):
        attack(outside, x, outside(x).argmax(-1))
