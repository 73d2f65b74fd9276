"""What `harden` finds out about a network, and what a step leaves alone in it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj
from keras_jsigr.training.introspection import has_training_behavior
from keras_jsigr.training.saliency_targets import logit_energy

ELSEWHERE = (
    "adversary", "input_range", "inputs", "name", "saliency_maps", "seed", "verbose",
    "warmup",
)  # fmt: skip


def harden(model, **settings):
    """Harden unchecked: what is no argument of `harden` is one of the recipe."""
    own = {name: settings.pop(name) for name in ELSEWHERE if name in settings}
    recipe = kj.JSIGRConfig(**{"check_gradients": False, **settings})
    return kj.harden(model, recipe=recipe, **{"epsilon": 0.1, "verbose": 0, **own})


def net(*middle, shape=(8, 8, 1)):
    return keras.Sequential([keras.Input(shape), *middle, layers.Flatten(), layers.Dense(3)])


def frozen(layer):
    layer.trainable = False
    return layer


CASES = {
    "plain": (lambda: net(layers.Conv2D(2, 3)), False),
    "dropout": (lambda: net(layers.Dropout(0.5)), True),
    "no dropout": (lambda: net(layers.Dropout(0.0)), False),
    "noise": (lambda: net(layers.GaussianNoise(0.1)), True),
    "augmentation": (lambda: net(layers.RandomFlip("horizontal")), True),
    "batch norm": (lambda: net(layers.BatchNormalization()), True),
    "frozen": (lambda: net(frozen(layers.BatchNormalization())), False),
    "layer norm": (lambda: net(layers.LayerNormalization()), False),
    "nested": (lambda: net(net(layers.Dropout(0.1)), layers.Dense(3)), True),
    "lstm": (lambda: net(layers.LSTM(3), shape=(4, 2)), False),
    "lstm drops": (lambda: net(layers.LSTM(3, dropout=0.1), shape=(4, 2)), True),
    "recurrent": (
        lambda: net(layers.GRU(3, recurrent_dropout=0.1), shape=(4, 2)),
        True,
    ),
    "both ways": (
        lambda: net(layers.Bidirectional(layers.LSTM(3)), shape=(4, 2)),
        False,
    ),
}


def test_which_layers_depend_on_training():
    for name, (make, expected) in CASES.items():
        assert has_training_behavior(make()) is expected, name


def test_an_augmentation_is_seen_whatever_it_draws():
    for seed in range(2):
        flip = layers.RandomFlip("horizontal", seed=seed)
        assert not harden(net(flip))._forward.one_mode


def test_a_head_of_zeros_hides_nothing():
    for middle in (layers.Dropout(0.5), OwnNoise()):
        model = net(middle)
        model.layers[-1].kernel.assign(np.zeros_like(model.layers[-1].kernel))
        assert not harden(model)._forward.one_mode


def test_layers_that_are_freed_later():
    """Fine-tuning: differences of logits in one mode, also after unfreezing."""
    norm = frozen(layers.BatchNormalization())
    robust = harden(net(norm), estimator="finite_difference", norm="squared", verbose=0)
    assert robust._forward.one_mode
    norm.trainable = True
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile(keras.optimizers.SGD(1e-3), loss)
    x = np.random.default_rng(0).uniform(size=(16, 8, 8, 1)).astype("float32")
    history = robust.fit(x, np.arange(16) % 3, epochs=2).history
    assert max(history["fused_penalty"]) < 1.0


class OwnNoise(layers.Layer):
    """Holds a layer, and adds noise by itself."""

    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(2)

    def call(self, inputs, training=None):
        noise = keras.random.normal(keras.ops.shape(inputs)) if training else 0.0
        return self.inner(inputs + noise)


def test_what_a_layer_of_the_user_does_is_measured():
    model = net(OwnNoise())
    assert not has_training_behavior(model)
    assert not harden(model)._forward.one_mode


def net_map_source():
    return keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(3)]
    )


def test_a_batch_that_overflows_is_not_remembered():
    robust = harden(net_map_source())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("sgd", loss, run_eagerly=True)
    typical = robust.mean_change
    x = np.random.default_rng(0).uniform(size=(4, 8, 8, 1)).astype("float32")
    robust.train_on_batch(x, np.arange(4) % 3)
    before = float(typical.value)
    for weight in robust.base.get_weights()[:1]:  # the data are finite, answers not
        robust.base.weights[0].assign(np.full_like(weight, np.inf))
    robust.train_on_batch(x, np.arange(4) % 3)
    assert float(typical.value) == pytest.approx(before)
    assert before != pytest.approx(1e-3)


def test_maps_of_inputs_of_another_shape():
    x = np.random.default_rng(0).uniform(size=(8, 8, 8)).astype("float32")
    cache = kj.PerturbationCache.build(lambda x: x[:, 0, :3], x)
    with pytest.raises(ValueError, match=r"got a cache of shape \(8, 8\), expected"):
        harden(net_map_source(), saliency_maps=cache)


def test_labels_that_agree_are_evidence_where_classes_are_independent():
    logits = tf.constant([[4.0, 4.0], [4.0, -4.0]])
    found = logit_energy(logits, "squared_logits", "sigmoid")
    np.testing.assert_allclose(found, [16.0, 16.0])
    exclusive = logit_energy(logits, "squared_logits")
    np.testing.assert_allclose(exclusive, [0.0, 16.0], atol=1e-6)


def test_one_unit_has_the_evidence_of_its_two_classes():
    units = logit_energy(tf.constant([[3.0]]), "squared_logits", "sigmoid")
    classes = logit_energy(tf.constant([[0.0, 3.0]]), "squared_logits", "softmax")
    np.testing.assert_array_equal(units, classes)


def test_maps_of_labels_that_agree_are_not_full():
    """Otherwise the selective penalty ignores all inputs of such examples."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    kernel = np.repeat(np.eye(2), 2, axis=0) * 2.5
    model.set_weights([kernel, np.zeros(2)])
    settings = {
        "live_maps": kj.LiveMaps(samples=None, baseline="zero"),
        "class_score": "logit",
        "selective_target": "score",
        "estimator": "exact",
        "jacobian_weight": 0.0,
    }
    robust = harden(model, input_range=(-1.0, 1.0), **settings)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    robust.compile(keras.optimizers.SGD(0.0), loss)
    typical = robust.mean_change
    penalties = []
    for x, y in (([1, 1, 1, 1], [1, 1]), ([1, 1, -1, -1], [1, 0])):
        typical.assign(0.25)
        robust.reset_metrics()
        results = robust.train_on_batch(
            np.array([x], "float32"), np.array([y], "float32"), return_dict=True
        )
        penalties.append(results["selective_penalty"])
    assert penalties[0] > 0.1
    assert penalties[0] == pytest.approx(penalties[1], rel=1e-5)


LENGTHS = np.array([1, 3, 4, 6])


def sequences(value):
    x = np.random.default_rng(0).uniform(0.3, 0.9, (4, 6, 2)).astype("float32")
    x[np.arange(6) >= LENGTHS[:, None]] = value
    return x


class Counted(keras.layers.Masking):
    """Remembers how long the sequences of every pass were."""

    seen = ()

    def call(self, inputs):
        steps = keras.ops.any(keras.ops.not_equal(inputs, self.mask_value), -1)
        lengths = keras.ops.convert_to_numpy(keras.ops.sum(steps, -1))
        self.seen = (*self.seen, lengths.tolist())
        return super().call(inputs)


def network(value):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 2)),
            Counted(value),
            keras.layers.LSTM(4),
            keras.layers.Dense(3),
        ]
    )


def test_no_pass_of_a_step_sees_padding():
    value, y = -1.0, np.arange(4) % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    attack = {"epsilon": 0.1, "input_range": (-1.0, 1.0)}
    for settings in (
        {},
        {"live_maps": kj.LiveMaps(samples=None, grid=2), "selection": "hard"},
        {"start_radius": 0.1, "start_patch_sizes": (2,)},
        {"estimator": "finite_difference", "norm": "squared"},
        {"adversary": kj.attacks.FGSM(random_start=True, **attack)},
        {"adversary": kj.attacks.PGD(steps=2, **attack)},
    ):
        net = network(value)
        robust = harden(net, input_range=(-1.0, 1.0), **settings)
        robust.compile("sgd", loss, run_eagerly=True)
        net.layers[0].seen = ()
        robust.train_on_batch(sequences(value), y)
        seen = net.layers[0].seen
        assert len(seen) >= 1, settings
        assert all(lengths == LENGTHS.tolist() for lengths in seen), settings


def test_the_steps_beside_the_padding_move():
    robust = harden(network(0.0), start_radius=0.1)
    x = sequences(0.0)
    step = robust._forward.perturbed_inputs(
        tf.constant(x), tf.one_hot([0, 1, 2, 0], 3), tf.constant([0, 1]), None
    )
    moved = np.abs(step.inputs[0].numpy() - x).max(-1)
    np.testing.assert_array_equal(moved > 0, np.arange(6) < LENGTHS[:, None])


def image_and_sequence():
    image, sequence = keras.Input((6, 6, 1)), keras.Input((6, 2))
    seen = keras.layers.Flatten()(image)
    read = keras.layers.LSTM(4)(keras.layers.Masking()(sequence))
    joined = keras.layers.Concatenate()([seen, read])
    return keras.Model([image, sequence], keras.layers.Dense(3)(joined))


def test_zeros_of_an_image_beside_a_masked_sequence_are_no_padding():
    robust = harden(image_and_sequence(), start_radius=0.1)
    assert robust.padding == ((), (0.0,))
    image, x = np.zeros((4, 6, 6, 1), "float32"), sequences(0.0)
    step = robust._forward.perturbed_inputs(
        [tf.constant(image), tf.constant(x)], None, tf.constant([0, 1]), None
    )
    # Half of the noise is below the range.
    assert 0.3 < np.mean(step.inputs[0].numpy() > 0) < 0.7
    moved = np.abs(step.inputs[1].numpy() - x).max(-1)
    np.testing.assert_array_equal(moved > 0, np.arange(6) < LENGTHS[:, None])


def test_what_is_scaled_before_it_is_masked_is_no_padding():
    net = keras.Sequential(
        [
            keras.Input((6, 2)),
            keras.layers.Rescaling(2.0, offset=-1.0),
            keras.layers.Masking(),
            keras.layers.LSTM(4),
            keras.layers.Dense(3),
        ]
    )
    assert harden(net).padding == ((),)


def test_only_the_padding_of_its_own_input_may_leave_the_range():
    robust = harden(image_and_sequence(), input_range=(0.1, 1.0))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("sgd", loss, run_eagerly=True)
    image, y = np.full((4, 6, 6, 1), 0.5, "float32"), np.arange(4) % 3
    robust.fit([image, sequences(0.0)], y)
    image[:, 0] = 0.0
    with pytest.raises(ValueError, match="leaves the declared range"):
        robust.fit([image, sequences(0.0)], y)


X = np.random.default_rng(0).uniform(size=(4, 5, 2)).astype("float32")


Y = np.array([0, 1, 2, 0])


def network_stateful():
    keras.utils.set_random_seed(0)
    x = keras.Input(batch_shape=(4, 5, 2))
    lstm = keras.layers.LSTM(3, stateful=True)
    return keras.Model(x, keras.layers.Dense(3)(lstm(x)))


def states(net):
    return np.stack([state.numpy() for state in net.layers[1].states])


def trained(model, **kwargs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss, **kwargs)
    model.train_on_batch(X, Y)


def test_harden_leaves_them_alone():
    net = network_stateful()
    harden(net)
    assert not states(net).any()


@pytest.mark.parametrize("eager", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_step_moves_them_once(eager):
    plain = network_stateful()
    trained(plain)
    assert np.abs(states(plain)).max() > 0.01
    for settings in (
        {},
        {"live_maps": kj.LiveMaps(samples=None, grid=2), "selection": "hard"},
        {"estimator": "finite_difference", "norm": "squared"},
        {"adversary": kj.attacks.PGD(epsilon=1e-9, steps=2)},
    ):
        base = network_stateful()
        trained(harden(base, **settings), run_eagerly=eager)
        np.testing.assert_allclose(states(base), states(plain), atol=1e-6, err_msg=str(settings))
