"""What holds of every saliency method, and how it is asked for."""

import ctypes
import dataclasses
import gc
import inspect
import itertools
import threading
import weakref
from collections import deque
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr import saliency
from keras_jsigr.core.batching import CompiledCache
from keras_jsigr.saliency import (
    METHODS,
    SmoothGrad,
    base,
    explain,
    explainer,
    gradient_map,
)
from keras_jsigr.saliency.gradients import gradient_explainer

FAST = {
    "gradient": {},
    "gradient_x_input": {},
    "smoothgrad": {"samples": 3},
    "vargrad": {"samples": 3},
    "integrated_gradients": {"steps": 3},
    "grad_cam": {"verbose": 0},
    "perturbation": {"grid": 2},
    "sarfa": {"grid": 2},
    "occlusion": {"patch": 4},
    "rise": {"samples": 5, "grid": 2},
}
# These ask about many copies of an example, `chunk` at once.
CHUNKED = ("smoothgrad", "vargrad", "integrated_gradients", "occlusion", "rise")

each_method = pytest.mark.parametrize("method", METHODS)


def state_of(model):
    """Return everything of a model that an explanation might change."""
    layers = [
        (layer, {k: v for k, v in vars(layer).items() if k != "_called"})
        for layer in model._flatten_layers(include_self=True, recursive=True)
    ]
    return layers, [w.numpy() for w in model.variables], model.get_config()


def test_all_methods_are_tried():
    assert FAST.keys() == METHODS.keys()


@each_method
def test_contract(conv_net, images, method):
    decided = conv_net(images).numpy().argmax(-1)
    before = state_of(conv_net)
    settings = {"method": method, "batch_size": 4, **FAST[method]}
    run = explainer(conv_net, images[:1], **settings)
    maps = run(images)
    assert isinstance(maps, np.ndarray)
    assert maps.dtype == np.float32
    assert maps.shape == (11, 10, 8)
    assert np.isfinite(maps).all()
    assert maps.std() > 0
    scale = np.abs(maps).max()
    close = {"rtol": 1e-3, "atol": 1e-4 * scale}
    # The same again, for the labels of the decision as a tensor, and in a fresh call.
    np.testing.assert_array_equal(run(images), maps)
    chunk = {"chunk": 22} if method in CHUNKED else {}
    np.testing.assert_allclose(explain(conv_net, images, **settings, **chunk), maps, **close)
    tensors = run(tf.constant(images), tf.constant(decided))
    assert tf.is_tensor(tensors)
    np.testing.assert_allclose(tensors, maps, **close)
    # Neither the batch nor the order matters.
    some = run(images[5:2:-1], decided[5:2:-1])
    np.testing.assert_allclose(some, maps[5:2:-1], **close)
    if method != "perturbation":  # Its default score needs no class.
        other = run(images, (decided + 1) % 3)
        assert np.abs(other - maps).max() > 1e-2 * scale
    for y in (None, np.zeros(0, int)):
        assert run(images[:0], y).shape == (0, 10, 8)
    # The model is what it was.
    layers, weights, config = state_of(conv_net)
    assert config == before[2]
    for pair, old in zip(layers, before[0], strict=True):
        assert pair[0] is old[0]
        assert pair[1].keys() == old[1].keys()
        assert all(pair[1][key] is old[1][key] for key in old[1])
    for weight, old in zip(weights, before[1], strict=True):
        np.testing.assert_array_equal(weight, old)


@pytest.mark.parametrize("method", ["gradient", "vargrad", "perturbation", "rise"])
def test_one_trace_and_current_weights(images, method):
    traces, factor = [], tf.Variable(1.0)

    def model(x):
        traces.append(1)
        return factor * tf.tanh(tf.reduce_sum(x[:, :4, :4] ** 2, (1, 2)) - 5.0)

    plain = {"normalize": False} if method == "perturbation" else {}
    settings = {"method": method, "batch_size": 4, **plain, **FAST[method]}
    run = explainer(model, images[:1], **settings)
    first, once = run(images), len(traces)
    assert run(images[:3]).shape == (3, 10, 8)
    factor.assign(0.01)
    assert np.abs(run(images) - first).max() > 0
    assert len(traces) == once


def programs_of(model):
    recent = base._PROGRAMS._by_owner.get(model, {})
    return [key for key in recent if key[0][1] != "fitted"]


def test_equal_explainers_share_one_program(conv_net, images, labels, monkeypatch):
    """Whatever asks for it, and only as long as the model lives."""
    for _ in range(3):
        gradient_map(conv_net, images, labels)
        explain(conv_net, images[:3], labels[:3])
        gradient_explainer(conv_net, images)(images, labels)
    assert len(programs_of(conv_net)) == 1
    for samples in (2, 3, 2, 3):
        explain(conv_net, images, method="smoothgrad", samples=samples)
    explain(conv_net, images)  # without labels
    for _ in range(2):
        explain(conv_net, images, method="occlusion", patch=[4, 4])
        explain(conv_net, images, method="grad_cam", verbose=0)
        kj.perturbation_map(conv_net, images)
    assert len(programs_of(conv_net)) == 7
    model = keras.Sequential.from_config(conv_net.get_config())
    for method in ("gradient", "grad_cam"):
        explain(model, images, method=method, **FAST[method])
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    monkeypatch.setattr(base, "_PROGRAMS", CompiledCache(2))
    for method in ("gradient", "grad_cam", "gradient", "gradient_x_input"):
        explain(conv_net, images, method=method, **FAST[method])
    assert len(programs_of(conv_net)) <= 2


def test_a_shared_program_is_of_the_model_as_it_is(images):
    """Weights, settings, layers and losses may change between two calls."""
    relu = keras.layers.LeakyReLU(0.3)
    flat, end = keras.layers.Flatten(), keras.layers.Dense(3)
    norm, scale = keras.layers.BatchNormalization(), keras.layers.Rescaling(1.0)
    inputs = keras.Input((10, 8, 2))
    model = keras.Model(inputs, end(relu(norm(flat(scale(inputs))))))
    changes = [
        lambda: end.kernel.assign(2.0 * end.kernel + 0.1),
        lambda: norm.moving_mean.assign(norm.moving_mean + 0.5),
        lambda: setattr(relu, "negative_slope", 0.9),
        lambda: setattr(scale, "scale", 3.0),
        lambda: setattr(end, "activation", keras.activations.softmax),
        lambda: setattr(end, "activation", keras.activations.linear),
        lambda: model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True)),
        lambda: setattr(model, "trainable", False),
        lambda: model.compile(loss="hinge"),
    ]
    same = 0
    before = explain(model, images, score="margin")
    for change in changes:
        change()
        found = explain(model, images, score="margin")
        anew = keras.models.clone_model(model)
        anew.set_weights(model.get_weights())
        anew.compile(loss=model.loss)
        expected = explain(anew, images, score="margin")
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        same += np.allclose(found, before)
        before = found
    assert same <= 4


def test_callables_are_asked_anew(images):
    factor = [1.0]
    ask = lambda x: factor[0] * x[:, 0, :3, 0]  # noqa: E731
    before = explain(ask, images, score="logit")
    factor[0] = 2.0
    np.testing.assert_allclose(explain(ask, images, score="logit"), 2.0 * before)


def test_random_layers_draw_the_same_in_every_explanation(images):
    class Noise(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.seed = keras.random.SeedGenerator(1)

        def call(self, x):
            return x + keras.random.normal(keras.ops.shape(x), seed=self.seed)

    silu = keras.layers.Dense(4, activation="silu")
    layers = [Noise(), keras.layers.Flatten(), silu, keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((10, 8, 2)), *layers])
    first = explain(model, images)
    np.testing.assert_array_equal(explain(model, images), first)


@pytest.mark.slow
def test_a_thousand_explanations_take_no_memory(conv_net, images, labels):
    def used():
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    def ask():
        explain(conv_net, images, labels)
        explain(conv_net, images, method="occlusion", patch=4)

    for _ in range(20):
        ask()
    before = used()
    for _ in range(500):
        ask()
    assert used() - before < 20.0


@each_method
def test_heads_integers_and_half_precision(method):
    """A softmax is seen through, whole numbers are floats, layers may be float16."""

    def net(policy, head=None):
        keras.utils.set_random_seed(0)
        layers = [
            keras.layers.Conv2D(3, 3, dtype=policy),
            keras.layers.Flatten(dtype=policy),
            keras.layers.Dense(3, activation=head, dtype=policy),
        ]
        return keras.Sequential([keras.Input((8, 8, 1)), *layers])

    x = np.random.default_rng(0).integers(0, 9, (2, 8, 8, 1)).astype("uint8")
    settings = {"method": method, **FAST[method]}
    expected = explain(net("float32"), x.astype("float32"), **settings)
    size = np.abs(expected).max()
    assert size > 0
    found = explain(net("float32", "softmax"), x, **settings)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * size)
    half = explain(net("mixed_float16"), x, **settings)
    assert half.dtype == np.float32
    assert np.isfinite(half).all()


@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
def test_another_thread_never_notices(images, method):
    """It predicts with the same model while the explanation is compiled and run."""
    inner = [
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Flatten(),
        keras.layers.Dense(3, activation="softmax"),
    ]
    model = keras.Sequential([keras.Input((10, 8, 2)), *inner])
    x = tf.constant(images)
    expected, wrong, stop = model(x).numpy(), [], threading.Event()
    maps = explain(model, images, method=method, **FAST[method])

    def predict():
        while not stop.is_set():
            try:
                if np.abs(model(x).numpy() - expected).max() > 1e-6:
                    wrong.append("another answer")
            except Exception as error:
                wrong.append(repr(error))

    other = threading.Thread(target=predict)
    other.start()
    try:
        found = explain(model, images, method=method, **FAST[method])
    finally:
        stop.set()
        other.join()
    assert wrong == []
    np.testing.assert_allclose(found, maps, rtol=1e-4, atol=1e-6)


def test_nan_in_the_first_example_stays_there(images):
    net = dense_net(3, "softmax")
    y = net(images).numpy().argmax(-1)
    spoilt = images.copy()
    spoilt[0, 1, 1] = np.nan
    for method, model in itertools.product(("gradient", "occlusion"), (net, lambda x: net(x))):
        clean = explain(model, images, y, method=method)
        maps = explain(model, spoilt, y, method=method)
        np.testing.assert_allclose(maps[1:], clean[1:], rtol=1e-4, atol=1e-5)


def test_one_of_several_inputs(images):
    """By a callable of the one to explain, with the others held fixed."""
    a, b = keras.Input((10, 8, 2)), keras.Input((3,))
    flat = keras.layers.Flatten()(a)
    both = keras.layers.Concatenate()([flat, b])
    model = keras.Model([a, b], keras.layers.Dense(3)(both))
    fixed = tf.constant([[0.2, 0.4, 0.1]])

    def one(x):
        return model([x, tf.tile(fixed, (tf.shape(x)[0], 1))])

    assert explain(one, images, method="smoothgrad").shape == (11, 10, 8)
    with pytest.raises(TypeError, match="pass a callable of the one to explain"):
        explain(model, [images, np.zeros((11, 3))])


def test_tables_and_sequences(make_net, rng):
    for shape in ((12,), (6, 3)):
        x = rng.random((4, *shape), dtype=np.float32)
        for method in ("gradient", "vargrad", "integrated_gradients", "perturbation"):
            run = explainer(make_net(shape), x[:1], method=method, **FAST[method])
            assert run(x).shape == (4, shape[0])
            assert run(x[:0]).shape == (0, shape[0])


def test_grey_images_by_layout(images):
    grey = images[..., 0]
    model = lambda x: tf.reduce_sum(x[:, :3], 1)[:, :3]  # noqa: E731
    for method in ("integrated_gradients", "occlusion", "rise"):
        maps = explain(model, grey, method=method, layout="image", **FAST[method])
        assert maps.shape == (11, 10, 8)


def test_volumes_without_a_sum_over_channels(rng):
    x = rng.random((2, 4, 3, 3, 2), dtype=np.float32)
    model = keras.Sequential(
        [keras.Input(x.shape[1:]), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    flat = keras.Sequential([keras.Input((72,)), model.layers[-1]])
    for method in ("gradient", "smoothgrad"):
        found = explain(model, x, method=method, reduce=False)
        beside = explain(flat, x.reshape(2, 72), method=method, reduce=False)
        np.testing.assert_allclose(found.reshape(2, 72), beside, rtol=1e-4, atol=1e-6)
        with pytest.raises(ValueError, match="layout"):
            explain(model, x, method=method)


# ---- kinds of decision


def dense_net(units=3, head="sigmoid"):
    dense = keras.layers.Dense(units, activation=head)
    return keras.Sequential([keras.Input((10, 8, 2)), keras.layers.Flatten(), dense])


def test_one_unit_is_a_decision_between_two_classes(images):
    """Of two classes that exclude each other, whatever the head is called."""
    for method in ("occlusion", "sarfa", "gradient"):
        net, y = dense_net(1), np.arange(11) % 2
        settings = {"method": method, **FAST[method]}
        maps = [explain(net, images, y, kind=k, **settings) for k in ("sigmoid", "softmax")]
        np.testing.assert_allclose(*maps, rtol=1e-6)
        assert np.abs(maps[0]).max() > 0


def test_the_logit_of_one_unit_has_the_sign_of_the_class(images):
    for method in ("gradient", "occlusion"):
        net = dense_net(1)
        run = explainer(net, images[:1], method=method, score="logit", **FAST[method])
        assert run.method.score == "margin"
        no, yes = run(images, [0] * 11), run(images, [1] * 11)
        if method == "occlusion":
            np.testing.assert_allclose(no, -yes, rtol=1e-4, atol=1e-6)
        else:
            rows = np.abs(net.layers[-1].kernel.numpy()).reshape(10, 8, 2).sum(-1)
            np.testing.assert_allclose(no, [rows] * 11, rtol=1e-4)
            np.testing.assert_allclose(yes, [rows] * 11, rtol=1e-4)


def test_the_head_says_whether_classes_exclude_each_other(images):
    for method in ("gradient", "occlusion", "perturbation"):
        model, labels = dense_net(), np.array([[1.0, 0.0, 1.0]] * 11, "float32")
        for y in (None, labels):
            found = explain(model, images, y, method=method)
            independent = explain(model, images, y, method=method, kind="sigmoid")
            np.testing.assert_array_equal(found, independent)
        if method == "gradient":
            exclusive = explain(model, images, labels, method=method, kind="softmax")
            assert np.abs(found - exclusive).max() > 1e-3


def test_so_does_a_binary_loss(images):
    model = dense_net(head=None)
    exclusive = gradient_map(model, images)
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    independent = gradient_map(model, images)
    assert np.abs(independent - exclusive).max() > 1e-3
    expected = gradient_map(model, images, kind="sigmoid")
    np.testing.assert_array_equal(independent, expected)


def test_certain_decisions_in_half_precision(rng):
    """Gradients far below the smallest number of float16."""
    net = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    net.layers[-1].bias.assign([20.0, 0.0, 0.0])
    for half in ("float16", "bfloat16"):  # what `fit` would hand to the model
        x = tf.cast(rng.normal(size=(5, 6)), half)
        expected = explain(net, tf.cast(x, tf.float32), [0] * 5)
        assert 0.0 < np.max(expected) < 1e-7
        np.testing.assert_array_equal(explain(net, x, [0] * 5), expected)
        np.testing.assert_array_equal(explain(net, x.numpy(), [0] * 5), expected)


def test_one_dtype_for_logits_that_are_the_inputs():
    x = np.eye(2) / 3.0
    found = gradient_map(lambda v: v, x, [0, 0], score="logit", reduce=False)
    np.testing.assert_array_equal(found, [[1.0, 0.0]] * 2)


# ---- hardened models


def test_a_hardened_model_is_explained_as_its_base(conv_net, images):
    for method in ("gradient", "grad_cam"):
        robust = kj.harden(conv_net, epsilon=0.1, verbose=0)
        settings = {"method": method, **FAST[method]}
        np.testing.assert_allclose(
            explain(robust, images, **settings),
            explain(conv_net, images, **settings),
            rtol=1e-4,
            atol=1e-6,
        )


def test_the_range_of_a_hardened_model_is_the_default(conv_net, images):
    x, wide = 2.0 * images - 1.0, {"input_range": (-1.0, 1.0)}
    robust = kj.harden(conv_net, epsilon=0.1, verbose=0, **wide)
    for method in ("smoothgrad", "vargrad", "integrated_gradients", "occlusion", "rise"):
        run = explainer(robust, x[:1], method=method, **FAST[method])
        assert run.method.input_range == (-1.0, 1.0)
        named = explainer(robust, x[:1], method=method, input_range=(0.0, 1.0))
        assert named.method.input_range == (0.0, 1.0)
    for method in ("smoothgrad", "occlusion"):
        found = explain(robust, x, method=method, **FAST[method])
        expected = explain(conv_net, x, method=method, **wide, **FAST[method])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
        narrow = explain(conv_net, x, method=method, **FAST[method])
        assert np.abs(narrow - expected).max() > 1e-2 * np.abs(expected).max()


# ---- how it is asked for


def test_methods_as_objects(conv_net, images):
    method = SmoothGrad(samples=3, score="margin")
    run = explainer(conv_net, images, method=method)
    # With what the model says of itself filled in.
    known = {"kind": "softmax", "input_range": (0.0, 1.0)}
    assert run.method == dataclasses.replace(method, **known)
    np.testing.assert_array_equal(
        run(images),
        explain(conv_net, images, method="smoothgrad", samples=3, score="margin"),
    )
    with pytest.raises(TypeError, match=r"\['noise'\] beside a SmoothGrad"):
        explain(conv_net, images, method=method, noise=0.1)


def test_the_old_name_of_y_still_works(conv_net, images, labels):
    with pytest.warns(DeprecationWarning, match="`y`"):
        found = explain(conv_net, images, targets=labels)
    np.testing.assert_array_equal(found, explain(conv_net, images, labels))


def test_refused(conv_net, images):
    wrong = [
        ({"method": "lime"}, "Unknown `method`: got 'lime'"),
        ({"method": None}, "Unknown `method`: got None"),
        ({"method": "occlusion", "batch_size": 0}, "batch_size 0"),
        ({"method": "sarfa", "kind": "sigmoid"}, "independent classes"),
        ({"kind": "linear"}, "Unknown `kind`: got 'linear'"),
        ({"y": [0, 1], "method": "rise"}, "11 examples and 2 labels"),
    ]
    for settings, message in wrong:
        with pytest.raises(ValueError, match=message):
            explain(conv_net, images, **settings)
    with pytest.raises(ValueError, match="Got no examples"):
        explain(conv_net, images[:0])
    with pytest.raises(TypeError, match="'gradient' has no setting 'samples'"):
        explain(conv_net, images, samples=3)
    with pytest.raises(TypeError, match="'sarfa' has no setting 'score'"):
        explain(conv_net, images, method="sarfa", score="sarfa")
    with pytest.raises(TypeError, match="expected a Keras model"):
        explain("model.keras", images, method="smoothgrad")
    with pytest.raises(TypeError, match="Got dict, expected one array"):
        explain(conv_net, {"a": images})


def test_labels_that_are_no_class(conv_net, images):
    for label in (3, -1, 0.5):
        y = np.array([0, label])
        for settings in ({}, {"method": "grad_cam"}, {"method": "perturbation"}):
            with pytest.raises(ValueError, match="`y` is out of range"):
                explain(conv_net, images[:2], y, **settings)


def test_labels_that_the_loss_leaves_out(conv_net, images):
    conv_net.compile(loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=-1))
    for method in ("gradient", "occlusion", "grad_cam"):
        maps = explain(conv_net, images[:2], [0, -1], method=method, **FAST[method])
        assert np.abs(maps[0]).max() > 0
        np.testing.assert_array_equal(maps[1], 0.0)


def test_public_names_are_documented():
    for name in saliency.__all__:
        public = getattr(saliency, name)
        if inspect.isfunction(public) or inspect.isclass(public):
            assert public.__doc__


def test_every_setting_is_documented():
    for kind in METHODS.values():
        settings = {each.name for each in dataclasses.fields(kind) if each.init}
        lines = [line.split(":")[0].strip() for line in kind.__doc__.splitlines()]
        assert settings <= set(lines)


# ---- padding

LENGTHS = np.array([1, 3, 4, 6])
PADDING = {
    "smoothgrad": {"samples": 4, "chunk": 8},
    "integrated_gradients": {"baseline": "mean", "steps": 4},
    "perturbation": {"baseline": "mean"},
    "occlusion": {"baseline": "mean", "chunk": 3},
    "rise": {"baseline": "mean", "samples": 6, "chunk": 3},
}


class Counted(keras.layers.Masking):
    """Remembers how long the sequences of every pass were."""

    # Passes run in parallel: to append is one operation.
    seen: ClassVar[deque] = deque()

    def call(self, inputs):
        steps = tf.reduce_any(inputs != self.mask_value, -1)
        tf.py_function(self._see, [tf.math.count_nonzero(steps, -1)], [])
        return super().call(inputs)

    def _see(self, lengths):
        self.seen.append(lengths.numpy())


@pytest.fixture
def sequences():
    x = np.random.default_rng(0).uniform(0.3, 0.9, (4, 6, 2)).astype("float32")
    x[np.arange(6) >= LENGTHS[:, None]] = -1.0
    return x


@pytest.fixture
def recurrent():
    layers = [Counted(-1.0), keras.layers.LSTM(4), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((6, 2)), *layers])


def assert_only_true_steps(passes):
    """Passes of a batch, and of several copies of it, show its own steps."""
    assert len(passes) >= 2
    for lengths in passes:
        copies = len(lengths) // len(LENGTHS)
        np.testing.assert_array_equal(lengths, np.tile(LENGTHS, copies))


@pytest.mark.parametrize("method", PADDING)
def test_padding_stays_padding(recurrent, sequences, method):
    run = explainer(recurrent, sequences, method=method, **PADDING[method])
    Counted.seen.clear()
    maps = run(sequences)
    assert_only_true_steps(Counted.seen)
    assert np.ptp(maps, axis=1).max() > 0


def test_occluded_padding_changes_nothing(recurrent, sequences):
    maps = explain(recurrent, sequences, method="occlusion", patch=1, baseline="mean")
    padding = np.arange(6) >= LENGTHS[:, None]
    np.testing.assert_array_equal(maps[padding], 0.0)
    assert (maps[~padding] != 0).all()


def test_cached_maps_are_those_of_the_true_steps(recurrent, sequences):
    y = np.arange(4) % 3
    Counted.seen.clear()
    kj.PerturbationCache.build(recurrent, sequences, y, baseline="mean", verbose=0)
    assert_only_true_steps([n for n in Counted.seen if len(n) >= len(LENGTHS)])
