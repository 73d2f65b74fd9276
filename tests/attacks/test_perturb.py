"""The pure form inside other functions: eager, graph, XLA, replicas, training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, MIFGSM, PGD

SEED = tf.constant([3, 4])
ATTACKS = [
    FGSM(epsilon=0.1),
    FGSM(epsilon=0.1, random_start=True),
    PGD(epsilon=0.1, steps=3),
    PGD(epsilon=0.5, norm="l2", steps=2, restarts=2),
    MIFGSM(epsilon=0.1, steps=3, loss="margin"),
]


def batch(n=6):
    x = np.random.default_rng(8).uniform(size=(n, 8, 8, 1)).astype("float32")
    return tf.constant(x), tf.one_hot(tf.range(n) % 5, 5)


@pytest.mark.parametrize(
    "attack", ATTACKS, ids=lambda a: f"{type(a).__name__}-{a.norm}-{a.random_start}"
)
def test_graph_equals_eager(cnn, attack):
    x, targets = batch()
    traces = []

    @tf.function(reduce_retracing=True)
    def step(x, targets, seed):
        traces.append(1)
        return attack.perturb(cnn, x, targets, seed=seed)

    eager = attack.perturb(cnn, x, targets, seed=SEED)
    np.testing.assert_allclose(step(x, targets, SEED), eager, atol=1e-6)
    step(x, targets, SEED + 1)
    assert len(traces) == 1


@pytest.mark.parametrize(
    "attack", ATTACKS, ids=lambda a: f"{type(a).__name__}-{a.norm}-{a.random_start}"
)
def test_xla(cnn, attack):
    x, targets = batch()

    @tf.function(jit_compile=True)
    def step(x, targets, seed):
        return attack.perturb(cnn, x, targets, seed=seed)

    result = step(x, targets, SEED)
    if attack.random_start:  # XLA has a random stream of its own.
        order = np.inf if attack.norm == "linf" else 2
        delta = (result - x).numpy().reshape(6, -1)
        assert np.linalg.norm(delta, order, axis=1).max() <= attack.epsilon + 1e-6
    else:
        eager = attack.perturb(cnn, x, targets, seed=SEED)
        np.testing.assert_allclose(result, eager, atol=1e-6)


def test_no_gradient_flows_through(cnn):
    x, targets = batch()
    attack = PGD(epsilon=0.1, steps=2)
    with tf.GradientTape() as tape:
        tape.watch(x)
        result = attack.perturb(cnn, x, targets, seed=SEED)
    assert tape.gradient(result, [x, *cnn.trainable_variables]) == [None] * (
        1 + len(cnn.trainable_variables)
    )


def test_only_the_input_gradient_is_computed(cnn):
    """The result needs no gradient of a weight, and one step no loop."""
    x, targets = batch()
    attack = FGSM(epsilon=0.1)
    step = tf.function(lambda x: attack.perturb(cnn, x, targets, seed=SEED))
    seen, queue = set(), [t.op for t in step.get_concrete_function(x).outputs]
    while queue:
        op = queue.pop()
        if op not in seen:
            seen.add(op)
            queue += [t.op for t in op.inputs]
    types = {op.type for op in seen}
    assert "Conv2DBackpropInput" in types
    assert not types & {"Conv2DBackpropFilter", "While", "StatelessWhile"}


def test_one_sigmoid_unit():
    x, targets = tf.constant([[0.5, 0.5]]), tf.constant([[1.0]])
    attack = PGD(epsilon=0.25, steps=4)
    result = attack.perturb(lambda x: x @ [[1.0], [-1.0]], x, targets, seed=SEED)
    np.testing.assert_allclose(result, [[0.25, 0.75]], atol=1e-6)


def test_half_precision_input_inside_a_function(cnn):
    x, targets = batch()
    x = tf.cast(x, tf.float16)
    attack = PGD(epsilon=0.1, steps=3)
    step = tf.function(lambda x: attack.perturb(cnn, x, targets, seed=SEED))
    assert step(x).dtype == tf.float16
    delta = tf.cast(step(x), tf.float64) - tf.cast(x, tf.float64)
    assert float(tf.reduce_max(tf.abs(delta))) <= 0.1 + 1e-6


def test_epsilon_zero(cnn):
    x, targets = batch()
    result = FGSM(epsilon=0).perturb(cnn, x, targets, seed=SEED)
    np.testing.assert_array_equal(result, x)


def test_adversarial_training_with_fit(make_cnn):
    attack = FGSM(epsilon=0.1, random_start=True)

    class Robust(keras.Model):
        def __init__(self, base):
            super().__init__()
            self.base = base
            self.counter = self.add_weight(
                shape=(), dtype="int32", initializer="zeros", trainable=False
            )

        def call(self, x, training=False):
            return self.base(x, training=training)

        def train_step(self, data):
            x, y = data
            self.counter.assign_add(1)
            seed = tf.stack([0, tf.convert_to_tensor(self.counter)])
            targets = tf.one_hot(y, 5)
            return super().train_step(
                (attack.perturb(self.base, x, targets, seed=seed), y)
            )

    x, _ = batch(32)
    model = Robust(make_cnn(5))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    history = model.fit(x, tf.range(32) % 5, batch_size=8, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_replica_context(cnn):
    strategy = tf.distribute.get_strategy()
    x, targets = batch()
    attack = PGD(epsilon=0.1, steps=2)

    @tf.function
    def run():
        return strategy.run(lambda: attack.perturb(cnn, x, targets, seed=SEED))

    expected = attack.perturb(cnn, x, targets, seed=SEED)
    np.testing.assert_allclose(run(), expected, atol=1e-6)
