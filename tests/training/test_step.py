"""One SGD step against weights computed in NumPy, on one and on two devices."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import keras_jsigr as kj
from keras_jsigr import JSIGRConfig, JSIGRModel
from keras_jsigr.attacks.norms import LinfBall
from keras_jsigr.training.step import patch_noise, step_seed

B, D, C, RATE = 8, 5, 3, 0.1
ELSEWHERE = (
    "adversary", "input_range", "inputs", "name", "saliency_maps", "seed", "verbose",
    "warmup",
)  # fmt: skip


def harden(model, **settings):
    """Harden unchecked: what is no argument of `harden` is one of the recipe."""
    own = {name: settings.pop(name) for name in ELSEWHERE if name in settings}
    recipe = kj.JSIGRConfig(**{"check_gradients": False, **settings})
    return kj.harden(model, recipe=recipe, **{"epsilon": 0.1, "verbose": 0, **own})


@pytest.fixture
def data_model_step():
    rng = np.random.default_rng(0)
    return {
        "kernel": rng.standard_normal((D, C)),
        "bias": rng.standard_normal(C),
        "x": rng.uniform(0, 1, (B, D)),
        "y": rng.integers(0, C, B),
        "w": rng.uniform(0.2, 2.0, B),
    }


def numpy_loss(kernel, bias, data, settings, sample_weight, devices=1):
    """The objective of design, per example, in float64."""
    z = data["x"] @ kernel + bias
    shifted = z - z.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    p, onehot = np.exp(log_p), np.eye(C)[data["y"]]
    task = -(onehot * log_p).sum(1)
    columns = np.square(kernel).sum(1)
    l1 = settings.norm == "l1"
    linearized = settings.linearized
    if settings.selective_target == "jacobian":
        jacobian = np.sqrt(columns).sum() if l1 else 0.5 * columns.sum()
        selective = jacobian  # selection="all"
    else:
        if settings.class_score == "log_prob":
            cotangent = onehot - p
        elif settings.class_score == "logit":
            cotangent = onehot
        else:
            others = np.where(onehot > 0, 0.0, np.exp(shifted))
            cotangent = onehot - others / others.sum(1, keepdims=True)
        g = cotangent @ kernel.T
        if settings.selective_target == "mixed":
            deviations = settings.projection_std * np.sqrt(columns)
            folded = stats.foldnorm(np.abs(g) / deviations, scale=deviations).mean()
            squares = 0.5 * (np.square(g) + np.square(deviations)).sum(1)
            jacobian = selective = folded.sum(1) if l1 else squares
        else:
            jacobian = 0.5 * columns.sum()
            selective = np.abs(g).sum(1) if l1 else 0.5 * np.square(g).sum(1)
    penalty = settings.jacobian_weight * jacobian
    if linearized:  # the cross entropy is that of the log odds
        growth = settings.selective_weight * selective
        penalty += np.logaddexp(0.0, growth + np.log(np.expm1(task))) - task
    else:
        penalty += settings.selective_weight * selective
    # Every device takes the first examples of its part of the batch.
    size = len(z) // devices
    looked_at = np.arange(len(z)) % size < np.ceil(settings.batch_share * size)
    return np.mean(sample_weight * task) + np.mean((sample_weight * penalty)[looked_at])


def numpy_step(data, settings, sample_weight, devices=1):
    """Central differences of the float64 loss: independent of any tape."""
    parameters = [data["kernel"].copy(), data["bias"].copy()]
    stepped = []
    for index, parameter in enumerate(parameters):
        gradient = np.zeros_like(parameter)
        for position in np.ndindex(parameter.shape):
            ends = []
            for sign in (1, -1):
                moved = [q.copy() for q in parameters]
                moved[index][position] += sign * 1e-6
                ends.append(numpy_loss(*moved, data, settings, sample_weight, devices))
            gradient[position] = (ends[0] - ends[1]) / 2e-6
        stepped.append(parameter - RATE * gradient)
    return stepped


def linear_model(data, settings):
    net = keras.Sequential([keras.Input((D,)), keras.layers.Dense(C)])
    net.layers[0].set_weights([data["kernel"], data["bias"]])
    robust = JSIGRModel(net, settings)
    robust.compile(
        keras.optimizers.SGD(RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return robust


LINEARIZED = {"selective_target": "score", "linearized": True, "class_score": "margin"}
CASES = {
    "jacobian l1": {"norm": "l1"},
    "jacobian squared": {"norm": "squared"},
    "mixed l1 log_prob": {
        "selective_target": "mixed",
        "norm": "l1",
        "projection_std": 0.5,
    },
    "mixed squared margin": {
        "selective_target": "mixed",
        "norm": "squared",
        "class_score": "margin",
    },
    "score l1 log_prob": {"selective_target": "score", "norm": "l1"},
    "score squared log_prob": {"selective_target": "score", "norm": "squared"},
    "score squared margin": {
        "selective_target": "score",
        "norm": "squared",
        "class_score": "margin",
    },
    "score l1 logit": {
        "selective_target": "score",
        "norm": "l1",
        "class_score": "logit",
    },
    "linearized loss": LINEARIZED,
    "linearized loss, mixed": {**LINEARIZED, "selective_target": "mixed", "projection_std": 0.5},
    "linearized loss of three eighths": {**LINEARIZED, "batch_share": 0.3},
    "jacobian of half": {"norm": "squared", "batch_share": 0.5},
    "jacobian only": {"norm": "squared", "selective_weight": 0.0},
    "selective only": {
        "selective_target": "score",
        "norm": "l1",
        "jacobian_weight": 0.0,
    },
}


@pytest.mark.parametrize(
    ("devices", "weighted"),
    [(1, True), pytest.param(2, True, marks=pytest.mark.slow)],
    ids=["one device", "two devices"],
)
@pytest.mark.parametrize("case", CASES)
def test_one_step_equals_numpy(data_model_step, case, devices, weighted):
    defaults = {"jacobian_weight": 0.3, "selective_weight": 0.2}
    settings = JSIGRConfig(**{**defaults, **CASES[case]}, estimator="exact", selection="all")
    strategy = (
        tf.distribute.MirroredStrategy(
            ["CPU:0", "CPU:1"],
            # Several strategies in one process would share collective instances.
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )
        if devices == 2
        else tf.distribute.get_strategy()
    )
    with strategy.scope():
        robust = linear_model(data_model_step, settings)
    sample_weight = data_model_step["w"] if weighted else np.ones(B)
    dataset = tf.data.Dataset.from_tensors(
        (
            data_model_step["x"].astype("float32"),
            data_model_step["y"],
            sample_weight.astype("float32"),
        )
    )
    robust.fit(dataset, epochs=1, shuffle=False, verbose=0)
    expected = numpy_step(data_model_step, settings, sample_weight, devices)
    for value, wanted in zip(robust.base.get_weights(), expected, strict=True):
        np.testing.assert_allclose(value, wanted, atol=2e-6)


def test_penalties_do_not_depend_on_the_batch_size(data_model_step):
    """The mean of a penalty over two half batches is the one over the whole."""
    settings = JSIGRConfig(estimator="exact", selection="all", selective_target="score")
    reported = []
    for size in (B, B // 2):
        robust = linear_model(data_model_step, settings)
        robust.optimizer.learning_rate = 0.0
        history = robust.fit(
            data_model_step["x"].astype("float32"),
            data_model_step["y"],
            batch_size=size,
            verbose=0,
        ).history
        reported.append([history[f"{t}_penalty"][0] for t in ("jacobian", "selective")])
    np.testing.assert_allclose(*reported, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True])
def test_a_replica_without_examples_adds_nothing(data_model_step, cached):
    """Nine examples in batches of eight leave one for two devices."""
    x = np.concatenate([data_model_step["x"], data_model_step["x"][:1] / 2]).astype("float32")
    y = np.append(data_model_step["y"], 0)
    two = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    histories = []
    for strategy in (tf.distribute.get_strategy(), two):
        settings = {
            "estimator": "exact",
            "selective_target": "score",
            "selection": "all",
        }
        with strategy.scope():
            net = linear_model(data_model_step, None).base
            if cached:
                cache = kj.PerturbationCache.build(net, x, y, verbose=0)
                settings |= {
                    "selection": "soft",
                    "alignment_weight": 0.1,
                    "saliency_maps": cache,
                }
            robust = harden(net, **settings)
            robust.compile(
                keras.optimizers.SGD(0.0),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            )
        fit = robust.fit(x, y, batch_size=B, shuffle=False, verbose=0)
        assert all(np.isfinite(weight).all() for weight in robust.get_weights())
        histories.append(fit.history)
    assert len(histories[0]) == (6 if cached else 4)
    for name, value in histories[0].items():
        np.testing.assert_allclose(histories[1][name], value, rtol=1e-5)


def test_reported_loss_is_the_objective(data_model_step):
    settings = JSIGRConfig(
        estimator="exact", selection="all", jacobian_weight=0.3, selective_weight=0.2
    )
    robust = linear_model(data_model_step, settings)
    history = robust.fit(
        data_model_step["x"].astype("float32"), data_model_step["y"], verbose=0
    ).history
    wanted = numpy_loss(
        data_model_step["kernel"],
        data_model_step["bias"],
        data_model_step,
        settings,
        np.ones(B),
    )
    np.testing.assert_allclose(history["loss"][0], wanted, rtol=1e-5)
    total = (
        history["task_loss"][0]
        + 0.3 * history["jacobian_penalty"][0]
        + 0.2 * history["selective_penalty"][0]
    )
    np.testing.assert_allclose(total, wanted, rtol=1e-5)


def test_a_loss_that_divides_by_the_weights_takes_the_penalty_along(data_model_step):
    """All weights alike: neither the loss nor the penalty depends on them."""
    settings = JSIGRConfig(selection="all", estimator="exact")
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )
    found = []
    for weight in (1.0, 0.01):
        robust = linear_model(data_model_step, settings)
        robust.compile(keras.optimizers.SGD(RATE), loss)
        found.append(
            robust.train_on_batch(
                data_model_step["x"].astype("float32"),
                data_model_step["y"],
                sample_weight=np.full(B, weight, "float32"),
                return_dict=True,
            )
        )
    assert found[0]["jacobian_penalty"] > 0.01
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-5, err_msg=name)


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
def data_noise():
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
    robust = harden(net, **settings)
    compiled(robust, run_eagerly=True)
    net.layers[0].seen.clear()
    for _ in range(steps):
        robust.train_on_batch(x, y)
    return net.layers[0].seen


def test_points_are_uniform_in_the_ball_and_the_range(data_noise):
    x, y = data_noise
    first, second = recorded(x, y, start_radius=RADIUS)
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


def test_the_seed_decides(data_noise):
    for a, b in zip(
        recorded(*data_noise, start_radius=RADIUS),
        recorded(*data_noise, start_radius=RADIUS),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    a, b = (recorded(*data_noise, 1, start_radius=RADIUS, seed=seed)[0] for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_radius_is_in_input_units(data_noise):
    x, y = data_noise
    (seen,) = recorded(255 * x, y, 1, start_radius=25.5, input_range=(0.0, 255.0))
    far = np.abs(seen - 255 * x).max()
    assert 25 < far <= 25.5


def test_a_step_is_one_at_these_points(data_noise):
    x, y = data_noise
    settings = {"estimator": "exact", "selection": "all", "warmup": 0}
    ball = LinfBall(tf.constant(x), RADIUS, (0.0, 1.0))
    seed = tf.random.experimental.stateless_fold_in(step_seed(0, 0), 101)
    trained = []
    for inputs, noise in ((x, RADIUS), (ball.sample(seed).numpy(), 0.0)):
        keras.utils.set_random_seed(0)
        hidden = keras.layers.Dense(8, activation="silu")
        net = keras.Sequential([keras.Input((FEATURES,)), hidden, keras.layers.Dense(CLASSES)])
        robust = compiled(harden(net, start_radius=noise, **settings))
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
    net = keras.Model(dict(zip("ab", inputs, strict=True)), keras.layers.Dense(CLASSES)(joined))
    settings = {"inputs": ["b"], "start_radius": RADIUS}
    robust = harden(net, **settings)
    compiled(robust, run_eagerly=True)
    for recorder in recorders:
        recorder.seen.clear()
    x = {name: np.full((8, 4), 0.5, "float32") for name in "ab"}
    robust.train_on_batch(x, np.zeros(8))
    np.testing.assert_array_equal(recorders[0].seen[0], x["a"])
    assert np.abs(recorders[1].seen[0] - x["b"]).min() > 0


def test_cached_maps_are_those_of_the_samples(data_noise):
    x, y = data_noise
    net = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)])
    cache = kj.PerturbationCache.build(net, x, y, verbose=0)
    robust = harden(net, saliency_maps=cache, selection="hard", start_radius=RADIUS)
    history = compiled(robust).fit(x, y, verbose=0).history
    assert history["map_hits"] == [1.0]


SEED = (3, 5)


def drawn(shape, *sides, seed=SEED):
    return patch_noise(tf.zeros(shape), seed, sides).numpy()


def borders(noise, axis):
    """Return where the noise changes along an axis, as positions."""
    changes = np.diff(noise, axis=axis) != 0
    others = tuple(a for a in range(noise.ndim) if a != axis)
    return np.flatnonzero(changes.any(others)) + 1


def test_it_changes_at_the_borders_of_one_grid_alone():
    for (side, seed), axis in itertools.product(((2, 0), (4, 1), (7, 2)), (1, 2)):
        noise = drawn((3, 17, 23, 2), side, seed=(seed, 0))
        found = borders(noise, axis)
        assert len(set(found % side)) == 1
        np.testing.assert_array_equal(np.diff(found), side)
        assert found[0] <= side
        assert found[-1] >= noise.shape[axis] - side


def test_examples_channels_and_patches_are_independent():
    noise = drawn((200, 12, 12, 3), 4)
    count = noise[:, 0, 0, 0].size
    for a, b in (
        (noise[:-1, 5, 5, 0], noise[1:, 5, 5, 0]),
        (noise[:, 5, 5, 0], noise[:, 5, 5, 1]),
        (noise[:, 0, 0, 0], noise[:, 6, 0, 0]),
    ):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(count)


def test_one_pattern_is_uniform():
    for side in (1, 4):
        noise = drawn((4000, 8, 8, 1), side)[:, 3, 3, 0]
        assert np.abs(noise).max() <= 1
        assert abs(noise.mean()) < 4 / np.sqrt(3 * noise.size)
        # The variance of the square of a uniform variable is 4 / 45.
        assert abs(np.square(noise).mean() - 1 / 3) < 4 * np.sqrt(4 / 45 / noise.size)


def test_grids_begin_anywhere():
    first = {borders(drawn((1, 40, 40, 1), 4, seed=(n, 0)), 1)[0] for n in range(60)}
    assert first == {1, 2, 3, 4}


def test_several_patterns_are_added_and_clipped():
    noise = drawn((2000, 8, 8, 1), 2, 4, 7)[:, 3, 3, 0]
    assert np.abs(noise).max() == 1
    # |n_1 + n_2 + n_3| of uniform variables exceeds 1 with probability 1/3.
    share = np.mean(np.abs(noise) == 1)
    assert abs(share - 1 / 3) < 4 * np.sqrt(2 / 9 / noise.size)


def test_a_further_pattern_is_added_to_the_first():
    first, both = drawn((5, 24, 24, 1), 2), drawn((5, 24, 24, 1), 2, 4)
    second = np.where(np.abs(both) < 1, both - first, np.nan)
    for axis in (1, 2):
        steps = np.diff(second, axis=axis)
        others = tuple(a for a in range(4) if a != axis)
        found = np.flatnonzero((np.nan_to_num(np.abs(steps)) > 1e-6).any(others)) + 1
        assert len(set(found % 4)) == 1


def test_side_one_is_the_uniform_draw_of_the_ball():
    x = tf.fill((6, 5, 4, 2), 0.5)
    ball = LinfBall(x, 0.25, (0.0, 1.0))
    np.testing.assert_array_equal(0.5 + 0.25 * patch_noise(x, SEED), ball.sample(tf.constant(SEED)))


def test_features_have_no_neighbours():
    np.testing.assert_array_equal(drawn((5, 30), 4), drawn((5, 30), 1))


def test_sequences_have_patches_of_steps():
    noise = drawn((3, 20, 2), 5)
    assert len(set(borders(noise, 1) % 5)) == 1
    assert (noise[:, :, 0] != noise[:, :, 1]).any()


def test_lengths_may_be_unknown_when_traced():
    spec = tf.TensorSpec((None, None, None, 1))
    traced = tf.function(lambda x: patch_noise(x, SEED, (2, 4)), input_signature=[spec])
    x = tf.zeros((2, 9, 11, 1))
    np.testing.assert_array_equal(traced(x), patch_noise(x, SEED, (2, 4)))
    compiled = tf.function(lambda x: patch_noise(x, SEED, (2, 4)), jit_compile=True)
    np.testing.assert_array_equal(compiled(x), patch_noise(x, SEED, (2, 4)))


class Adding(keras.layers.Layer):
    """Adds a loss of its activations."""

    def call(self, inputs):
        self.add_loss(tf.reduce_mean(tf.square(inputs)))
        return inputs


def test_losses_of_activations_are_of_the_whole_batch(data_noise):
    """Keras keeps those of the last pass: a batch in two parts would lose the first."""
    x, y = data_noise
    reported = []
    for share in (1.0, 0.5):
        keras.utils.set_random_seed(0)
        dense = keras.layers.Dense(CLASSES, activity_regularizer=keras.regularizers.L2(0.1))
        robust = compiled(
            harden(keras.Sequential([keras.Input((FEATURES,)), dense]), batch_share=share)
        )
        reported.append(robust.train_on_batch(x, y, return_dict=True)["task_loss"])
    assert reported[0] > 1.2
    np.testing.assert_allclose(*reported, rtol=1e-5)
    own = keras.Sequential([keras.Input((FEATURES,)), Adding(), keras.layers.Dense(CLASSES)])
    with pytest.raises(ValueError, match=r"batch_share=1\.0"):
        compiled(harden(own, batch_share=0.5)).train_on_batch(x, y)
    compiled(harden(own)).train_on_batch(x, y)
