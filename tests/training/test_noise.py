"""Steps at random points near the inputs: where they are, and that they are taken."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr.attacks.balls.ball import LinfBall
from keras_jsigr.training.step_seed import step_seed

N, FEATURES, CLASSES = 512, 12, 3
RADIUS = 0.1


class Recorder(keras.layers.Layer):
    """Keeps what it sees in training mode; needs eager steps."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = []

    def call(self, inputs, training=None):
        if training and tf.executing_eagerly():
            self.seen.append(np.array(inputs))
        return inputs


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.uniform(0, 1, (N, FEATURES)).astype("float32"), rng.integers(0, 3, N)


def compiled(model, **kwargs):
    model.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **kwargs,
    )
    return model


def recorded(x, y, steps=2, **settings):
    """Return what the network sees in each step."""
    keras.utils.set_random_seed(0)
    layers = [Recorder(), keras.layers.Dense(CLASSES)]
    net = keras.Sequential([keras.Input((FEATURES,)), *layers])
    robust = kj.harden(net, verbose=0, probe=False, **settings)
    compiled(robust, run_eagerly=True)
    net.layers[0].seen.clear()
    for _ in range(steps):
        robust.train_on_batch(x, y)
    return net.layers[0].seen


def test_points_are_uniform_in_the_ball_and_the_range(data):
    x, y = data
    first, second = recorded(x, y, noise=RADIUS)
    for seen in (first, second):
        assert np.abs(seen - x).max() <= RADIUS
        assert seen.min() >= 0
        assert seen.max() <= 1
    assert not np.array_equal(first, second)
    # Where the range does not cut: mean 0 and variance r^2 / 3, in standard errors.
    inner = (x > RADIUS) & (x < 1 - RADIUS)
    moves = (first - x)[inner] / RADIUS
    count = moves.size
    assert abs(moves.mean()) < 4 / np.sqrt(3 * count)
    # The variance of the square of a uniform variable is 4 / 45.
    assert abs(np.square(moves).mean() - 1 / 3) < 4 * np.sqrt(4 / 45 / count)
    # Every example has a draw of its own.
    assert abs(np.corrcoef(first[0] - x[0], first[1] - x[1])[0, 1]) < 0.99


def test_the_seed_decides(data):
    for a, b in zip(
        recorded(*data, noise=RADIUS), recorded(*data, noise=RADIUS), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    a, b = (recorded(*data, 1, noise=RADIUS, seed=seed)[0] for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_radius_is_in_input_units(data):
    x, y = data
    (seen,) = recorded(255 * x, y, 1, noise=25.5, input_range=(0.0, 255.0))
    far = np.abs(seen - 255 * x).max()
    assert 25 < far <= 25.5


def test_none_leaves_the_inputs(data):
    for seen in recorded(*data):
        np.testing.assert_array_equal(seen, data[0])


def test_a_step_is_one_at_these_points(data):
    x, y = data
    settings = {"estimator": "exact", "selection": "all", "ramp_steps": 0}
    ball = LinfBall(tf.constant(x), RADIUS, (0.0, 1.0))
    seed = tf.random.experimental.stateless_fold_in(step_seed(0, 0), 101)
    trained = []
    for inputs, noise in ((x, RADIUS), (ball.sample(seed).numpy(), 0.0)):
        keras.utils.set_random_seed(0)
        hidden = keras.layers.Dense(8, activation="silu")
        net = keras.Sequential(
            [keras.Input((FEATURES,)), hidden, keras.layers.Dense(CLASSES)]
        )
        robust = compiled(kj.harden(net, verbose=0, noise=noise, **settings))
        robust.train_on_batch(inputs, y)
        trained.append(net.get_weights())
    for a, b in zip(*trained, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_only_regularized_inputs_move():
    inputs = [keras.Input((4,), name=name) for name in "ab"]
    recorders = [Recorder(), Recorder()]
    joined = keras.layers.Concatenate()(
        [recorder(value) for recorder, value in zip(recorders, inputs, strict=True)]
    )
    net = keras.Model(
        dict(zip("ab", inputs, strict=True)), keras.layers.Dense(CLASSES)(joined)
    )
    settings = {"inputs": ["b"], "noise": RADIUS}
    robust = kj.harden(net, verbose=0, probe=False, **settings)
    compiled(robust, run_eagerly=True)
    for recorder in recorders:
        recorder.seen.clear()
    x = {name: np.full((8, 4), 0.5, "float32") for name in "ab"}
    robust.train_on_batch(x, np.zeros(8))
    np.testing.assert_array_equal(recorders[0].seen[0], x["a"])
    assert np.abs(recorders[1].seen[0] - x["b"]).min() > 0


def test_cached_maps_are_those_of_the_samples(data):
    x, y = data
    net = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)])
    cache = kj.PerturbationCache.build(net, x, y, verbose=0)
    robust = kj.harden(net, maps=cache, selection="hard", noise=RADIUS, verbose=0)
    history = compiled(robust).fit(x, y, verbose=0).history
    assert history["map_hits"] == [1.0]


def test_it_survives_saving(data, tmp_path):
    net = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)])
    robust = compiled(kj.harden(net, noise=RADIUS, verbose=0))
    robust.save(tmp_path / "m.keras")
    assert keras.models.load_model(tmp_path / "m.keras").settings.noise == RADIUS


def test_an_adversary_has_its_own_start():
    net = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)])
    attack = kj.attacks.FGSM(epsilon=RADIUS, random_start=True)
    with pytest.raises(ValueError, match=r"got noise=0\.1 beside it, expected 0"):
        kj.harden(net, adversary=attack, noise=RADIUS, verbose=0)
