"""Networks that forward mode cannot train are refused before `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj
from keras_jsigr.training.double_backprop_check import double_precision, second_order

FORWARD = {"estimator": "jvp", "norm": "squared"}


def harden(model, **settings):
    return kj.harden(model, 0.1, kj.JSIGRConfig(**settings), verbose=0)


def net(shape, *body):
    return keras.Sequential([keras.Input(shape), *body, layers.Dense(3)])


def test_loops_are_refused():
    for recurrent in (layers.GRU, layers.LSTM):
        with pytest.raises(ValueError, match="estimator='finite_difference'") as error:
            harden(net((5, 3), recurrent(4)), **FORWARD)
        assert "`dtype`" in str(error.value)
        assert "Exception encountered" not in str(error.value)
    # Whoever knows better is not asked.
    assert harden(net((5, 3), layers.GRU(4)), check_gradients=False, **FORWARD)


def test_unrolled_they_train():
    robust = harden(net((5, 3), layers.SimpleRNN(4, unroll=True)), **FORWARD)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("adam", loss, run_eagerly=True)
    x = np.random.default_rng(0).random((8, 5, 3), "float32")
    history = robust.fit(x, np.zeros(8, int))
    assert np.isfinite(history.history["loss"]).all()


def test_what_has_a_derivative_passes_and_stays_as_it_is():
    model = net(
        (8, 8, 1),
        layers.Conv2D(3, 3, activation="silu"),
        layers.MaxPooling2D(),
        layers.BatchNormalization(),
        layers.Dropout(0.5),
        layers.Flatten(),
    )
    before = [v.numpy() for v in model.variables]
    harden(model, **FORWARD)
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


conv, dense = layers.Conv2D, layers.Dense


def image_net(*middle, first=()):
    return keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            *first,
            conv(4, 3, padding="same"),
            *middle,
            layers.Flatten(),
            dense(3),
        ]
    )


def series_net(*middle):
    return keras.Sequential([layers.Input((6, 4)), *middle, dense(3)])


def attention_net():
    inputs = layers.Input((6, 4))
    x = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    x = layers.LayerNormalization()(layers.Add()([x, inputs]))
    return keras.Model(inputs, dense(3)(layers.GlobalAveragePooling1D()(x)))


# Several layers in one network: each has to pass for it to pass.
GOOD = {
    "rectifiers": lambda: image_net(
        layers.ReLU(), layers.MaxPooling2D(), layers.LeakyReLU(), layers.Activation("gelu")
    ),
    "batch": lambda: image_net(layers.BatchNormalization(), layers.AveragePooling2D(2)),
    "norms": lambda: image_net(
        layers.GroupNormalization(2),
        layers.LayerNormalization(),
        layers.UpSampling2D(interpolation="nearest"),
    ),
    "random": lambda: image_net(
        layers.Dropout(0.3),
        layers.SpatialDropout2D(0.3),
        first=[layers.Rescaling(2.0, -1.0), layers.RandomFlip()],
    ),
    "spectral": lambda: image_net(
        layers.SpectralNormalization(conv(4, 3)), layers.Flatten(), dense(3, activation="softmax")
    ),
    "lstm": lambda: series_net(layers.LSTM(4)),
    "attention": attention_net,
}


@pytest.mark.parametrize("name", GOOD)
def test_right_networks_pass(name):
    """And are left as they were."""
    model = GOOD[name]()
    before = [v.numpy() for v in model.variables]
    policies = [layer.dtype_policy for layer in model._flatten_layers()]
    harden(model)
    for variable, value in zip(model.variables, before, strict=True):
        assert variable.numpy().tobytes() == value.tobytes(), variable.path
    assert [layer.dtype_policy for layer in model._flatten_layers()] == policies


def test_right_networks_pass_in_half_precision():
    for name, policy in (
        ("batch", "mixed_float16"),
        ("attention", "mixed_float16"),
        ("lstm", "mixed_bfloat16"),
    ):
        keras.config.set_dtype_policy(policy)
        harden(GOOD[name]())


BAD = {
    "bilinear Resizing": (
        lambda: image_net(layers.Resizing(6, 6, name="culprit")),
        "wrong by",
    ),
    "bilinear UpSampling2D": (
        lambda: image_net(layers.UpSampling2D(interpolation="bilinear", name="culprit")),
        "wrong by",
    ),
    "bicubic": (
        lambda: image_net(layers.Resizing(6, 6, "bicubic", name="culprit")),
        "raises",
    ),
    "softsign": (
        lambda: image_net(layers.Activation("softsign", name="culprit")),
        "raises",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_networks_are_refused_and_left_as_they_were(name):
    make, how = BAD[name]
    model = make()
    before = [v.numpy() for v in model.variables]
    words = f"second derivative of `culprit`.* {how}.*estimator='finite_difference'.*'squared'"
    with pytest.raises(ValueError, match=words):
        harden(model)
    for variable, value in zip(model.variables, before, strict=True):
        assert variable.numpy().tobytes() == value.tobytes()
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    harden(model, check_gradients=False)  # does not ask


def test_layers_that_move_pixels_are_refused():
    for layer, moves in (
        (layers.RandomRotation, 1),
        (layers.RandomZoom, 1),
        (layers.RandomPerspective, 1),
        (layers.RandomShear, 2),
        (layers.RandomTranslation, 2),
        (layers.RandomElasticTransform, 1),
    ):
        first = layer(*[0.1] * moves, seed=1, name="culprit")
        with pytest.raises(ValueError, match=r"derivative of `culprit` \(Random.* wrong"):
            harden(image_net(first=[first]))


@pytest.mark.parametrize(
    "name", ["softsign", pytest.param("bilinear Resizing", marks=pytest.mark.slow)]
)
def test_the_way_out_trains(name):
    keras.utils.set_random_seed(0)
    robust = harden(BAD[name][0](), estimator="finite_difference", norm="squared")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("adam", loss)
    x = np.random.default_rng(0).uniform(0, 1, (4, 8, 8, 3)).astype("float32")
    history = robust.fit(x, np.array([0, 1, 2, 0])).history
    assert np.isfinite(history["fused_penalty"]).all()


class Insists(layers.Layer):
    """Computes in float32 whatever its policy says."""

    def build(self, shape):
        self.scale = self.add_weight((shape[-1],), initializer="ones")

    def call(self, x):
        tf.debugging.assert_type(x, tf.float32)
        return tf.raw_ops.Mul(x=x, y=tf.cast(self.scale, tf.float32))


@tf.custom_gradient
def forgets(x):
    """The square, whose derivative pretends to be constant, in float32 alone."""
    tf.debugging.assert_type(x, tf.float32)
    twice = tf.stop_gradient(2.0 * x)
    return x * x, lambda upstream: upstream * twice


def test_wrong_derivatives_in_float32_alone_are_found():
    """Double precision cannot be tried: the differences are those of floats."""
    squares = layers.Lambda(forgets, name="culprit")
    with pytest.raises(ValueError, match=r"`culprit`.* is wrong by"):
        harden(image_net(layers.BatchNormalization(), squares))


def test_wrong_derivatives_of_frozen_layers_are_found():
    """Once they are trained, nobody asks again."""
    for inside in (False, True):
        culprit = layers.Lambda(forgetful, name="culprit")
        frozen = [layers.Conv2D(3, 3, name="below"), culprit]
        if inside:
            frozen = [keras.Sequential([layers.Input((8, 8, 3)), *frozen])]
        for layer in frozen:
            layer.trainable = False
        with pytest.raises(ValueError, match=r"`culprit`.* is wrong by"):
            harden(keras.Sequential([layers.Input((8, 8, 3)), *frozen, layers.Flatten(), dense(3)]))


def test_functions_that_are_computed_again_are_named():
    """Their layer holds another one, and is refused with the words of TensorFlow."""

    class Again(layers.Layer):
        def __init__(self, how):
            super().__init__(name="culprit")
            self.inner = conv(3, 3, activation="silu")
            self.how = how

        def build(self, shape):
            self.inner.build(shape)

        def call(self, x):
            return self.how(self.inner.call)(x)

    words = r"`culprit`.* raises: recompute_grad.* exchange the layer"
    for how in (keras.remat, tf.recompute_grad):
        with pytest.raises(ValueError, match=words):
            harden(image_net(Again(how)))


def test_layers_that_are_computed_again():
    """They are refused; one that the scope does not reach trains as ever."""
    for scope, fine in (
        ({"mode": "full"}, False),
        ({"mode": "larger_than", "output_size_threshold": 10}, False),
        ({"mode": "activations"}, False),
        ({"mode": "list_of_layers", "layer_names": ["inner"]}, False),
        ({"mode": "list_of_layers", "layer_names": ["another"]}, True),
        ({"mode": None}, True),
    ):
        with keras.RematScope(**scope):
            net = image_net(layers.Conv2D(3, 3, name="inner", activation="silu"))
        if fine:
            harden(net)
            continue
        with pytest.raises(ValueError, match=r"'inner'.*made within a `keras.RematScope`"):
            harden(net)
    # Hardening within a scope is harmless.
    net = image_net(layers.Activation("silu"))
    with keras.RematScope(mode="full"):
        robust = harden(net)
    x = np.random.default_rng(0).random((4, 8, 8, 3), "float32")
    np.testing.assert_array_equal(robust(x), net(x))


class Gathers(layers.Layer):
    """Has gradients that are not dense."""

    def build(self, shape):
        self.table = self.add_weight((5, shape[-1]), initializer="glorot_uniform")

    def call(self, x):
        return x * tf.gather(tf.convert_to_tensor(self.table), [2])[0]


class Shell(keras.Model):
    """A subclassed model around a network: its own policy casts the inputs."""

    def __init__(self):
        super().__init__()
        self.net = image_net(layers.Activation("silu"))

    def call(self, x):
        return self.net(x)


def test_own_layers_and_models_pass():
    """Those that insist on float32, and those whose gradients are not dense, too."""
    for layer in (Insists(), Gathers()):
        harden(image_net(layer))
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        model = Shell()
        model(np.zeros((1, 8, 8, 3), "float32"))
        harden(model)


@tf.custom_gradient
def forgetful(x):
    """The sine, whose derivative pretends to be constant."""
    cosine = tf.stop_gradient(tf.cos(x))
    return tf.sin(x), lambda upstream: upstream * cosine


class WrongOnceTrained(layers.Layer):
    """A layer that has another path for training."""

    def build(self, shape):
        self.scale = self.add_weight((shape[-1],), initializer="ones")

    def call(self, x):
        return (forgetful if self.trainable else tf.sin)(x * self.scale)


def test_what_frozen_layers_compute_once_unfrozen_is_checked():
    culprit = WrongOnceTrained(name="culprit")
    culprit.trainable = False
    with pytest.raises(ValueError, match=r"of `culprit`.*, once unfrozen, is wrong by"):
        harden(image_net(culprit))
    assert not culprit.trainable


def test_quantizations_and_gradients_of_zero_are_named():
    def quantized(x):
        return tf.quantization.fake_quant_with_min_max_args(tf.cast(x, tf.float32), -3.0, 3.0)

    for function, words in (
        (quantized, r"second derivative of `culprit` \(Lambda\) is wrong by"),
        (tf.sign, r"gradient of `culprit` \(Lambda\) is zero at all inputs tried"),
    ):
        middle = layers.Lambda(function, name="culprit")
        with pytest.raises(ValueError, match=words):
            harden(image_net(layers.Activation("silu"), middle))


def test_second_order_measures_the_error():
    start = np.random.default_rng(0).standard_normal((3, 2))
    w = keras.Variable(start, dtype="float64")
    x = tf.constant(np.random.default_rng(1).standard_normal((4, 3)))
    right = second_order(lambda x: tf.sin(x @ w.value), x, [w])
    assert right.passed
    assert right.error < 1e-4
    wrong = second_order(lambda x: forgetful(x @ w.value), x, [w])
    assert not wrong.passed
    assert wrong.error > 0.05


def test_double_precision_computes_in_float64_and_goes_back():
    model = image_net(layers.BatchNormalization())
    x = tf.random.uniform((2, 8, 8, 3), seed=0)
    before = model(x)
    with double_precision(model):
        wide = model(tf.cast(x, tf.float64))
    assert wide.dtype == tf.float64
    np.testing.assert_allclose(wide, before, atol=1e-5)
    assert all(v.dtype == "float32" for v in model.trainable_variables)
    np.testing.assert_array_equal(model(x), before)


class Custom(layers.Layer):
    """A ReLU, or a bilinear resizing, written into a custom call."""

    def __init__(self, resize, **kwargs):
        super().__init__(**kwargs)
        self.resize = resize

    def call(self, inputs):
        if self.resize:
            return tf.image.resize(inputs, (7, 7))
        return tf.nn.relu(inputs)


def custom_net(resize):
    return keras.Sequential(
        [
            layers.Input((16, 16, 3)),
            layers.Conv2D(64, 3, padding="same"),
            Custom(resize, name="custom"),
            layers.Conv2D(64, 3, activation="silu"),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )


def test_kinks_in_custom_code_are_no_reason_to_refuse():
    for seed in range(2):
        keras.utils.set_random_seed(seed)
        harden(custom_net(resize=False))


@pytest.mark.slow
def test_wrong_derivatives_in_custom_code_are_found():
    with pytest.raises(ValueError, match="`custom`"):
        harden(custom_net(resize=True))


@pytest.mark.slow
def test_a_large_rectified_network_passes():
    """A million units: some change sides in any finite difference."""
    net = keras.Sequential([layers.Input((64, 64, 3))])
    for _ in range(2):
        net.add(layers.Conv2D(64, 3, padding="same"))
        net.add(layers.ReLU())
        net.add(layers.Conv2D(64, 3, padding="same", activation="relu"))
        net.add(layers.MaxPooling2D())
    net.add(layers.Flatten())
    net.add(layers.Dense(3))
    harden(net)
    assert net.layers[0].activation is keras.activations.linear
    assert net.layers[2].activation is keras.activations.relu
    assert "call" not in vars(net.layers[1])


def test_a_head_of_zeros_passes():
    """As in transfer learning; it is looked at beside its weights."""
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        zeros = dense(3, kernel_initializer="zeros")
        net = keras.Sequential([layers.Input((4,)), dense(3, activation="silu"), zeros])
        before = net.get_weights()
        harden(net)
        for old, new in zip(before, net.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


def test_operations_without_a_kernel_in_double_precision_pass():
    for pooling in (layers.MaxPooling3D(2), layers.AveragePooling3D(2)):
        below = [layers.Input((5, 5, 5, 1)), layers.Conv3D(2, 2, activation="silu")]
        net = keras.Sequential([*below, pooling, layers.Flatten(), dense(3)])
        harden(net, selection="all")


@pytest.mark.slow
def test_maps_of_one_pixel_pass():
    """Of two examples batch normalization leaves a sign there."""
    shape = (32, 32, 3)
    net = keras.applications.ResNet50(input_shape=shape, weights=None, classes=3)
    harden(net)
