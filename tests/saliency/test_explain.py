"""One contract for all methods."""

import ast
import dataclasses
import inspect
from collections import deque
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
import keras_jsigr.saliency as saliency
from keras_jsigr.saliency import METHODS, SmoothGrad, explain, explainer, gradient_map

FAST = {
    "gradient": {},
    "smoothgrad": {"samples": 3},
    "vargrad": {"samples": 3},
    "integrated_gradients": {"steps": 3},
    "grad_cam": {"verbose": 0},
    "perturbation": {"grid": 2},
    "sarfa": {"grid": 2},
    "occlusion": {"patch": 4},
    "rise": {"samples": 5, "grid": 2},
    "meaningful_perturbation": {"steps": 3, "grid": 2, "sparsity": 0.0},
}


@pytest.mark.parametrize("method", METHODS)
def test_the_contract(conv_net, images, method):
    settings = FAST.get(method, {})
    decided = conv_net(images).numpy().argmax(-1)
    run = explainer(conv_net, images[:1], method=method, batch_size=4, **settings)
    maps = run(images)
    assert isinstance(maps, np.ndarray)
    assert maps.dtype == np.float32
    assert maps.shape == (11, 10, 8)
    assert np.isfinite(maps).all()
    assert maps.std() > 0
    scale = np.abs(maps).max()
    close = {"rtol": 1e-3, "atol": 1e-4 * scale}
    # Labels of the decision, tensors for tensors, any batch.
    tensors = run(tf.constant(images), tf.constant(decided))
    assert tf.is_tensor(tensors)
    np.testing.assert_allclose(tensors, maps, **close)
    np.testing.assert_allclose(run(images[3:5], decided[3:5]), maps[3:5], **close)
    if method != "perturbation":  # Its default score needs no class.
        other = run(images, (decided + 1) % 3)
        assert np.abs(other - maps).max() > 1e-2 * scale


@pytest.mark.parametrize("method", METHODS)
def test_no_examples_have_no_maps(conv_net, images, method):
    run = explainer(conv_net, images[:1], method=method, **FAST.get(method, {}))
    for y in (None, np.zeros(0, int)):
        assert run(images[:0], y).shape == (0, 10, 8)


@pytest.mark.parametrize("method", ["gradient", "perturbation", "occlusion"])
def test_nan_in_the_first_example_stays_there(images, method):
    keras.utils.set_random_seed(0)
    flat = [keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    net = keras.Sequential([keras.Input((10, 8, 2)), *flat])
    y = net(images).numpy().argmax(-1)
    spoilt = images.copy()
    spoilt[0, 1, 1] = np.nan
    for model in (net, lambda x: net(x)):
        clean = explain(model, images, y, method=method)
        maps = explain(model, spoilt, y, method=method)
        np.testing.assert_allclose(maps[1:], clean[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"grad_cam"}))
def test_one_trace_and_current_weights(images, method):
    traces, factor = [], tf.Variable(1.0)

    def model(x):
        traces.append(1)
        return factor * tf.tanh(tf.reduce_sum(x[:, :4, :4] ** 2, (1, 2)) - 5.0)

    settings = FAST.get(method, {})
    run = explainer(model, images[:1], method=method, batch_size=4, **settings)
    first, once = run(images), len(traces)
    assert run(images[:3]).shape == (3, 10, 8)
    factor.assign(0.0)
    assert np.abs(run(images) - first).max() > 0
    assert len(traces) == once


@pytest.mark.parametrize("method", ["smoothgrad", "occlusion"])
@pytest.mark.parametrize("head", ["softmax", "sigmoid", "binary"])
def test_heads_are_seen_behind(images, method, head):
    dense = keras.layers.Dense(1 if head == "binary" else 3)
    plain = [keras.Input((10, 8, 2)), keras.layers.Flatten(), dense]
    activation = keras.layers.Activation("softmax" if head == "softmax" else "sigmoid")
    settings = {**FAST[method], "kind": "sigmoid" if head == "sigmoid" else "softmax"}
    logits = keras.Sequential(plain)
    expected = explain(logits, images, method=method, **settings)
    got = explain(
        keras.Sequential([*plain, activation]), images, method=method, **settings
    )
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)
    assert np.abs(got).max() > 1e-3


def test_sarfa_refuses_independent_classes(conv_net, images):
    with pytest.raises(ValueError, match="independent classes"):
        explain(conv_net, images, method="sarfa", kind="sigmoid")


def test_a_hardened_model(conv_net, images):
    hardened = kj.harden(conv_net, probe=False, verbose=0)
    decided = np.eye(3, dtype="float32")[conv_net(images).numpy().argmax(-1)]
    np.testing.assert_allclose(
        explain(hardened, images, method="occlusion", patch=4),
        explain(conv_net, images, decided, method="occlusion", patch=4),
        rtol=1e-4,
        atol=1e-6,
    )


def test_grey_images_by_layout(images):
    grey = images[..., 0]
    model = lambda x: tf.reduce_sum(x[:, :3], 1)[:, :3]  # noqa: E731
    for method in ("smoothgrad", "integrated_gradients", "occlusion", "rise"):
        maps = explain(model, grey, method=method, layout="image", **FAST[method])
        assert maps.shape == (11, 10, 8)


def test_mixed_precision(images):
    net = keras.Sequential(
        [
            keras.Input((10, 8, 2)),
            keras.layers.Conv2D(4, 3, dtype="mixed_float16"),
            keras.layers.Flatten(dtype="mixed_float16"),
            keras.layers.Dense(3, dtype="mixed_float16"),
        ]
    )
    for method in ("vargrad", "grad_cam", "rise", "meaningful_perturbation"):
        maps = explain(net, images, method=method, **FAST.get(method, {}))
        assert maps.dtype == np.float32
        assert np.isfinite(maps).all()


def test_methods_as_objects(conv_net, images):
    method = SmoothGrad(samples=3, score="margin")
    run = explainer(conv_net, images, method=method)
    # With what the model says of itself filled in.
    assert run.method == dataclasses.replace(method, kind="softmax")
    np.testing.assert_array_equal(
        run(images),
        explain(conv_net, images, method="smoothgrad", samples=3, score="margin"),
    )
    with pytest.raises(TypeError, match=r"\['noise'\] beside a SmoothGrad"):
        explain(conv_net, images, method=method, noise=0.1)


def test_refused(conv_net, images):
    with pytest.raises(ValueError, match="Unknown `method`: got 'lime'"):
        explain(conv_net, images, method="lime")
    with pytest.raises(ValueError, match="Unknown `method`: got None"):
        explain(conv_net, images, method=None)
    with pytest.raises(TypeError, match="'gradient' has no setting 'samples'"):
        explain(conv_net, images, samples=3)
    with pytest.raises(TypeError, match="'sarfa' has no setting 'score'"):
        explain(conv_net, images, method="sarfa", score="sarfa")
    with pytest.raises(ValueError, match="Got no examples"):
        explain(conv_net, images[:0])
    with pytest.raises(ValueError, match="11 examples and 2 labels"):
        explain(conv_net, images, [0, 1], method="rise")
    with pytest.raises(ValueError, match="batch_size 0"):
        explain(conv_net, images, method="occlusion", batch_size=0)
    with pytest.raises(TypeError, match="expected a Keras model"):
        explain("model.keras", images, method="smoothgrad")


@pytest.mark.parametrize("label", [3, -1, 0.5])
def test_labels_that_are_no_class(conv_net, images, label):
    calls = [
        lambda x, y: explain(conv_net, x, y),
        lambda x, y: explain(conv_net, x, y, method="grad_cam", verbose=0),
        lambda x, y: kj.gradient_map(conv_net, x, y),
        lambda x, y: kj.perturbation_map(conv_net, x, y, grid=2),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="`y` is out of range"):
            call(images[:2], np.array([0, label]))


class Plain(keras.Model):
    """Subclassed: it casts nothing."""

    def __init__(self):
        super().__init__()
        self.conv = keras.layers.Conv2D(3, 3, name="features")
        self.pool = keras.layers.GlobalAveragePooling2D()

    def call(self, x):
        return self.pool(tf.nn.silu(self.conv(x)))


@pytest.mark.parametrize("method", METHODS)
def test_integers_are_floats(method):
    settings = FAST.get(method, {})
    net = Plain()
    x = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 1)).astype("uint8")
    net(x.astype("float32"))
    maps = explain(net, x, method=method, **settings)
    expected = explain(net, x.astype("float32"), method=method, **settings)
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["occlusion", "rise", "sarfa", "gradient"])
def test_one_unit_is_a_decision_between_two_classes(method):
    """Of two classes that exclude each other, whatever its head is called."""
    settings = FAST.get(method, {})
    dense = keras.layers.Dense(1, activation="sigmoid")
    net = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), dense])
    x = np.random.default_rng(0).uniform(size=(2, 8, 8, 1)).astype("float32")
    maps = [
        explain(net, x, [0, 1], method=method, kind=kind, **settings)
        for kind in ("sigmoid", "softmax")
    ]
    np.testing.assert_allclose(*maps, rtol=1e-6)
    assert np.abs(maps[0]).max() > 0


@pytest.mark.parametrize(
    "method", ["gradient", "smoothgrad", "occlusion", "meaningful_perturbation"]
)
def test_the_logit_of_one_unit_has_the_sign_of_the_class(images, method):
    dense = keras.layers.Dense(1, activation="sigmoid")
    net = keras.Sequential([keras.Input((10, 8, 2)), keras.layers.Flatten(), dense])
    run = explainer(net, images[:1], method=method, score="logit", **FAST[method])
    assert run.method.score == "margin"
    no, yes = run(images, [0] * 11), run(images, [1] * 11)
    assert (np.abs(no).max((1, 2)) > 0).all()
    if method in ("gradient", "smoothgrad"):
        rows = np.abs(dense.kernel.numpy()).reshape(10, 8, 2).sum(-1)
        np.testing.assert_allclose(no, [rows] * 11, rtol=1e-4)
        np.testing.assert_allclose(yes, [rows] * 11, rtol=1e-4)
    if method == "occlusion":
        np.testing.assert_allclose(no, -yes, rtol=1e-4, atol=1e-6)


def test_grad_cam_explains_both_classes_of_one_unit(images):
    """As of two units `(-z / 2, z / 2)`, but for the factor of two."""
    layers = keras.layers
    conv, pool = layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()
    one, two = layers.Dense(1, activation="sigmoid"), layers.Dense(2)
    nets = [
        keras.Sequential([keras.Input((10, 8, 2)), conv, pool, last])
        for last in (one, two)
    ]
    two.kernel.assign(np.concatenate([-one.kernel / 2, one.kernel / 2], axis=1))
    for label in (0, 1):
        maps, halves = (
            explain(net, images, [label] * 11, method="grad_cam", verbose=0)
            for net in nets
        )
        np.testing.assert_allclose(maps, 2 * halves, rtol=1e-4, atol=1e-6)
        assert maps.max() > 0


def several_labels(units=3):
    """Return a network of independent classes, of which it sees none in black."""
    return keras.Sequential(
        [
            keras.Input((10, 8, 2)),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation="sigmoid"),
        ]
    )


@pytest.mark.parametrize("method", ["gradient", "occlusion", "perturbation"])
def test_the_head_says_whether_classes_exclude_each_other(images, method):
    model = several_labels()
    labels = np.array([[1.0, 0.0, 1.0]] * len(images), "float32")
    for y in (None, labels):
        found = explain(model, images, y, method=method)
        independent = explain(model, images, y, method=method, kind="sigmoid")
        np.testing.assert_array_equal(found, independent)
    if method == "gradient":
        exclusive = explain(model, images, labels, method=method, kind="softmax")
        assert np.abs(found - exclusive).max() > 1e-3
        np.testing.assert_array_equal(gradient_map(model, images, labels), found)
        robust = kj.harden(model, verbose=0)
        np.testing.assert_allclose(explain(robust, images, labels), found, rtol=1e-6)


def test_so_does_a_binary_loss(images):
    model = keras.Sequential(several_labels().layers[:-1])
    model.add(keras.layers.Dense(3))
    exclusive = gradient_map(model, images)
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    independent = gradient_map(model, images)
    assert np.abs(independent - exclusive).max() > 1e-3
    np.testing.assert_array_equal(
        independent, gradient_map(model, images, kind="sigmoid")
    )


@pytest.mark.parametrize(
    "method", ["gradient", "gradient_x_input", "smoothgrad", "integrated_gradients"]
)
def test_volumes_without_a_sum_over_channels(rng, method):
    x = rng.random((2, 4, 3, 3, 2), dtype=np.float32)
    model = keras.Sequential(
        [keras.Input(x.shape[1:]), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    found = explain(model, x, method=method, reduce=False)
    flat = keras.Sequential([keras.Input((72,)), model.layers[-1]])
    beside = explain(flat, x.reshape(2, 72), method=method, reduce=False)
    np.testing.assert_allclose(found.reshape(2, 72), beside, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="layout"):
        explain(model, x, method=method)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_examples_in_half_precision_have_maps_of_what_is_certain(rng, half):
    net = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    net.layers[-1].bias.assign([20.0, 0.0, 0.0])
    x = tf.cast(rng.normal(size=(5, 6)), half)
    expected = explain(net, tf.cast(x, tf.float32), [0] * 5)
    assert 0.0 < np.max(expected) < 1e-7
    np.testing.assert_array_equal(explain(net, x, [0] * 5), expected)
    np.testing.assert_array_equal(explain(net, x.numpy(), [0] * 5), expected)


def test_grad_cam_of_what_is_certain_in_mixed_precision(images):
    def net(policy):
        layers = [
            keras.layers.Conv2D(4, 3, dtype=policy),
            keras.layers.GlobalAveragePooling2D(dtype=policy),
            keras.layers.Dense(3, dtype=policy),
        ]
        return keras.Sequential([keras.Input((10, 8, 2)), *layers])

    half, full = net("mixed_float16"), net("float32")
    full.layers[-1].bias.assign([20.0, 0.0, 0.0])
    half.set_weights(full.get_weights())
    settings = {"method": "grad_cam", "score": "log_prob", "verbose": 0}
    expected = explain(full, images, [0] * len(images), **settings)
    assert expected.max() > 0.0
    got = explain(half, images, [0] * len(images), **settings)
    np.testing.assert_allclose(got, expected, rtol=0.1, atol=0.03 * expected.max())


def test_a_row_of_logits_may_look_like_probabilities():
    x = np.array([[0.25, 0.75], [-1.0, 2.0]], "float32")
    found = gradient_map(lambda v: v, x, [0, 0], score="logit", reduce=False)
    np.testing.assert_array_equal(found, [[1.0, 0.0]] * 2)


def test_several_inputs_of_different_shapes(conv_net):
    with pytest.raises(TypeError, match="pass a callable of the one to explain"):
        explain(conv_net, [np.zeros((2, 3)), np.zeros((2, 4))])


def test_patches_may_not_leave_gaps(conv_net, images):
    with pytest.raises(ValueError, match="Use a stride of at most the patch"):
        explain(conv_net, images, method="occlusion", patch=2, stride=(2, 3))


def test_saliency_stands_on_core_alone():
    for file in Path(saliency.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and "keras_jsigr" in str(node.module):
                assert str(node.module).split(".")[1] in ("core", "saliency"), file


def test_public_names_exist_and_are_sorted():
    assert saliency.__all__ == sorted(saliency.__all__)
    for name in saliency.__all__:
        public = getattr(saliency, name)
        if inspect.isfunction(public) or inspect.isclass(public):
            assert public.__doc__


LENGTHS = np.array([1, 3, 4, 6])


METHODS_PADDING = {
    "smoothgrad": {"samples": 4, "chunk": 8},
    "vargrad": {"samples": 4},
    "integrated_gradients": {"baseline": "mean", "steps": 4},
    "perturbation": {"baseline": "mean"},
    "sarfa": {"baseline": "mean"},
    "occlusion": {"baseline": "mean", "chunk": 3},
    "rise": {"baseline": "mean", "samples": 6, "chunk": 3},
    "meaningful_perturbation": {"baseline": "mean", "steps": 2},
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


def sequences():
    x = np.random.default_rng(0).uniform(0.3, 0.9, (4, 6, 2)).astype("float32")
    x[np.arange(6) >= LENGTHS[:, None]] = -1.0
    return x


def network():
    keras.utils.set_random_seed(0)
    layers = [Counted(-1.0), keras.layers.LSTM(4), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((6, 2)), *layers])


def assert_steps_alone(passes):
    """Passes of a batch, and of several copies of it, show its own steps."""
    assert len(passes) >= 2
    for lengths in passes:
        copies = len(lengths) // len(LENGTHS)
        np.testing.assert_array_equal(lengths, np.tile(LENGTHS, copies))


@pytest.mark.parametrize("method", METHODS_PADDING)
def test_no_pass_sees_padding(method):
    net, x = network(), sequences()
    explain = kj.saliency.explainer(net, x, method=method, **METHODS_PADDING[method])
    Counted.seen.clear()
    maps = explain(x)
    assert_steps_alone(Counted.seen)
    assert np.ptp(maps, axis=1).max() > 0


def test_occluded_padding_changes_nothing():
    x = sequences()
    maps = kj.explain(network(), x, method="occlusion", patch=1, baseline="mean")
    np.testing.assert_array_equal(maps[np.arange(6) >= LENGTHS[:, None]], 0.0)
    assert (maps[np.arange(6) < LENGTHS[:, None]] != 0).all()


def test_cached_maps_are_those_of_the_steps():
    net, x = network(), sequences()
    Counted.seen.clear()
    kj.PerturbationCache.build(net, x, np.arange(4) % 3, baseline="mean", verbose=0)
    assert_steps_alone([n for n in Counted.seen if len(n) >= len(LENGTHS)])
