"""`with_smooth_activations`: the same model, every ReLU replaced."""

import threading
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr import with_smooth_activations
from keras_jsigr.core.inputs import input_specs
from keras_jsigr.core.keras_compat import leaf_layers
from keras_jsigr.model import JSIGRModel

L = keras.layers


@keras.saving.register_keras_serializable(package="smooth_tests")
class Block(L.Layer):
    """A residual block with everything hard-wired."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = L.Dense(4, activation="relu")
        self.many = [L.Dense(4), L.ReLU(), {"last": L.Activation("relu")}]
        self.inner = keras.Sequential([L.Dense(4), L.ReLU(6.0)])
        self.act = keras.activations.relu

    def build(self, shape: Any) -> None:
        self.inner.build(shape)
        self.dense.build(shape)
        self.many[0].build(shape)
        super().build(shape)

    def call(self, x: Any) -> Any:
        first, relu, last = self.many
        y = last["last"](relu(first(self.inner(self.dense(x)))))
        return self.act(x + y)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@keras.saving.register_keras_serializable(package="smooth_tests")
class Polite(keras.Model):
    """A subclassed model that says its activation in its config."""

    def __init__(self, activation: str = "relu", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name_of_activation = activation
        self.hidden = L.Dense(4, activation=activation)
        self.norm = L.BatchNormalization()
        self.head = L.Dense(3, activation="softmax")

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.head(self.norm(self.hidden(x), training=training))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "activation": self.name_of_activation}


@keras.saving.register_keras_serializable(package="smooth_tests")
class WithBackbone(keras.Model):
    """A subclassed model around a Functional one with ReLU layers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        x = keras.Input((4,))
        self.backbone = keras.Model(x, L.ReLU(max_value=6.0)(L.Dense(4)(x)))
        self.head = L.Dense(3)

    def call(self, x: Any) -> Any:
        return self.head(self.backbone(x))


def sequential(act: str = "relu") -> keras.Model:
    layers = [
        keras.Input((4,), name="x"),
        L.Dense(5, activation=act),
        L.BatchNormalization(),
        L.Dropout(0.3),
        L.Dense(4),
        L.ReLU(max_value=6.0) if act == "relu" else L.Activation(act),
        L.Dense(4),
        L.Activation(act),
        L.Dense(3, activation="softmax"),
    ]
    return keras.Sequential(layers, name="net")


def functional(act: str = "relu") -> keras.Model:
    """Two inputs, a shared layer, a nested model, an operation and a residual."""
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = L.Dense(4, activation=act, name="shared")
    i = keras.Input((4,))
    nested = keras.Sequential(
        [L.Dense(4, activation=act), L.ReLU() if act == "relu" else L.Activation(act)],
        name="nested",
    )
    inner = keras.Model(i, L.Add()([i, nested(i)]), name="inner")
    x = L.Add()([inner(shared(a)), inner(shared(b))])
    op = keras.ops.relu if act == "relu" else keras.activations.get(act)
    x = op(x) + a
    outputs = {"z": L.Dense(3, name="z")(x), "y": L.LeakyReLU()(x)}
    return keras.Model({"a": a, "b": b}, outputs, name="two")


def recurrent(act: str = "relu") -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((3, 4)),
            L.Bidirectional(L.LSTM(2, activation=act, return_sequences=True)),
            L.TimeDistributed(L.Dense(4, activation=act)),
            L.GRU(3, activation=act),
            L.Dense(3),
        ]
    )


def block(act: str = "relu") -> keras.Model:
    return keras.Sequential([keras.Input((4,)), Block(), L.Dense(3)])


def polite(act: str = "relu") -> keras.Model:
    net = Polite(act)
    net(np.zeros((1, 4), "float32"))
    return net


def with_backbone(act: str = "relu") -> keras.Model:
    net = WithBackbone()
    net(np.zeros((1, 4), "float32"))
    return net


def filled(net: keras.Model) -> keras.Model:
    rng = np.random.default_rng(0)
    net.set_weights(
        [rng.uniform(0.1, 1.0, w.shape) - 0.4 * (w.ndim > 1) for w in net.get_weights()]
    )
    return net


def batch(net: keras.Model) -> Any:
    rng = np.random.default_rng(1)
    return keras.tree.map_structure(
        lambda spec: rng.normal(size=(5, *spec.shape[1:])).astype("float32"),
        input_specs(net),
    )


def outputs(net: keras.Model) -> list[np.ndarray]:
    return [np.asarray(v) for v in keras.tree.flatten(net(batch(net), training=False))]


def relus(net: keras.Model) -> int:
    functions = (keras.activations.relu, keras.activations.relu6)
    return sum(
        isinstance(layer, L.ReLU) or getattr(layer, "activation", None) in functions
        for layer in leaf_layers(net)
    )


def quietly(net: keras.Model, activation: Any = "silu") -> keras.Model:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*builds its ReLU in its constructor.*")
        return with_smooth_activations(net, activation)


GRAPHS = [sequential, functional, recurrent]


ALL = [*GRAPHS, block, polite, with_backbone]


class NotSerializable:
    """A loss that Keras can neither copy nor save."""

    def __call__(self, y: Any, p: Any) -> Any:
        return keras.ops.mean(p)


@pytest.mark.parametrize("make", ALL)
def test_every_relu_goes_and_the_original_stays(make: Any) -> None:
    net = filled(make())
    net.compile("sgd", NotSerializable())
    before = outputs(net), net.get_config(), net.get_weights(), relus(net)
    smooth = quietly(net)
    assert relus(smooth) == 0
    assert type(smooth) is type(net)
    assert smooth.name == net.name
    assert not smooth.compiled
    for old, new in zip(net.get_weights(), smooth.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    for old, new in zip(outputs(net), outputs(smooth), strict=True):
        assert not np.allclose(old, new)
    for weight in smooth.weights:
        weight.assign(weight + 1.0)
    for old, new in zip(before[0], outputs(net), strict=True):
        np.testing.assert_array_equal(old, new)
    for old, new in zip(before[2], net.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert net.get_config() == before[1]
    assert relus(net) == before[3]
    assert net.compiled


@pytest.mark.parametrize("make", [*GRAPHS, polite])
def test_equals_the_model_written_with_the_activation(make: Any, tmp_path: Path) -> None:
    net = filled(make())
    for activation in ("softplus", "silu"):
        smooth = with_smooth_activations(net, activation)
        written = make(activation)
        written.set_weights(net.get_weights())
        for got, want in zip(outputs(smooth), outputs(written), strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
    smooth.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    for got, want in zip(outputs(loaded), outputs(smooth), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_other_threads_see_a_compiled_model_all_the_time() -> None:
    """Copies used to take `compiled` from the user's model for a while."""
    net = filled(sequential())
    net.compile("sgd", "sparse_categorical_crossentropy")
    handing = keras.Sequential([keras.Input((3,)), Handing(L.Dense(3, "relu"))])
    handing.compile("sgd", "mse")
    seen, stop = set(), threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.update((net.compiled, handing.compiled))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(3):
            with_smooth_activations(net)
        with pytest.raises(ValueError, match="cannot be copied"):
            with_smooth_activations(handing)
    finally:
        stop.set()
        watcher.join()
    assert seen == {True}
    assert relus(net) == 3


@pytest.mark.parametrize("make", [block, with_backbone])
def test_says_when_saving_would_bring_the_relu_back(make: Any, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="builds its ReLU in its constructor"):
        smooth = with_smooth_activations(filled(make()))
    smooth.save(tmp_path / "net.keras")
    again = quietly(keras.models.load_model(tmp_path / "net.keras"))
    for got, want in zip(outputs(again), outputs(smooth), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_a_hard_wired_block_computes_what_numpy_says() -> None:
    net = filled(block())
    smooth = quietly(net)
    w = [np.asarray(v, "float64") for v in net.layers[0].get_weights()]
    layers = [net.layers[0].dense, net.layers[0].many[0], net.layers[0].inner.layers[0]]
    (a, b), (c, d), (e, f) = (
        [np.asarray(v, "float64") for v in layer.get_weights()] for layer in layers
    )
    assert len(w) == 6

    def silu(v: Any) -> Any:
        return v / (1.0 + np.exp(-v))

    x = batch(net).astype("float64")
    y = silu(x @ a + b)
    y = silu(y @ e + f)
    y = silu(silu(y @ c + d))
    k, bias = net.layers[-1].get_weights()
    np.testing.assert_allclose(outputs(smooth)[0], silu(x + y) @ k + bias, atol=1e-5)


def test_shared_layers_stay_shared() -> None:
    smooth = with_smooth_activations(functional())
    assert len(smooth.weights) == len(functional().weights)
    assert smooth.get_layer("shared").activation is keras.activations.silu
    assert {key: value.shape for key, value in smooth.output.items()} == {
        "z": (None, 3),
        "y": (None, 4),
    }
    assert any(isinstance(layer, L.LeakyReLU) for layer in smooth.layers)


def test_trainable_flags_are_kept() -> None:
    for make in (functional, block, polite):
        check_trainable_flags(make())


def check_trainable_flags(net: keras.Model) -> None:
    net.layers[-1].trainable = False
    first = next(layer for layer in net.layers if layer.weights)
    first.trainable = False
    smooth = quietly(net)
    assert [v.name for v in smooth.trainable_weights] == [v.name for v in net.trainable_weights]
    assert [w.trainable for w in smooth.weights] == [w.trainable for w in net.weights]
    assert smooth.layers[-1].trainable is False
    assert next(v for v in smooth.layers if v.weights).trainable is False


def test_frozen_inside_a_nested_model() -> None:
    net = functional()
    inner = net.get_layer("inner")
    inner.trainable = False
    inner.get_layer("nested").layers[0].trainable = True
    smooth = with_smooth_activations(net)
    assert smooth.get_layer("inner").trainable is False
    assert smooth.get_layer("inner").get_layer("nested").layers[0].trainable is True
    assert len(smooth.trainable_weights) == len(net.trainable_weights)


def test_dtype_policies_are_kept() -> None:
    x = keras.Input((4,))
    y = L.Dense(4, activation="relu", dtype="mixed_float16")(x)
    y = L.ReLU(dtype="mixed_float16")(y)
    y = keras.ops.relu(y)
    net = keras.Model(x, L.Dense(3, dtype="float32")(y))
    smooth = with_smooth_activations(net)
    assert [layer.compute_dtype for layer in smooth.layers[:3]] == [
        "float32", "float16", "float16",
    ]  # fmt: skip
    assert smooth.layers[3].output.dtype == "float16"
    assert smooth.layers[-1].compute_dtype == "float32"


def test_the_result_can_be_hardened_and_trained() -> None:
    model = JSIGRModel(with_smooth_activations(sequential()))
    model.compile("sgd", "sparse_categorical_crossentropy")
    x = np.random.default_rng(0).random((4, 4), "float32")
    history = model.fit(x, np.zeros(4), verbose=0)
    assert np.isfinite(history.history["loss"][0])


def test_functions_and_custom_activations() -> None:
    def bump(x: Any) -> Any:
        return keras.ops.exp(-x * x)

    net = keras.Sequential(
        [keras.Input((4,)), L.Dense(4, activation=bump), L.Dense(3, activation="relu")]
    )
    smooth = with_smooth_activations(net, keras.ops.tanh)
    assert smooth.layers[0].activation is bump
    custom = with_smooth_activations(filled(sequential()), bump)
    assert custom.layers[0].activation is bump
    np.testing.assert_allclose(
        custom.layers[0](np.ones((1, 4))),
        bump(np.ones((1, 4)) @ custom.get_weights()[0] + custom.get_weights()[1]),
        atol=1e-6,
    )


class Unrebuildable(keras.Model):
    def __init__(self, units: Any) -> None:
        super().__init__()
        self.dense = L.Dense(len(units), activation="relu")

    def call(self, x: Any) -> Any:
        return self.dense(x)


class Handing(L.Layer):
    """Its config holds the live layer: a copy would share it."""

    def __init__(self, inner: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, x: Any) -> Any:
        return self.inner(x)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "inner": self.inner}


def test_clear_errors() -> None:
    with pytest.raises(TypeError, match="Keras 3 model"):
        with_smooth_activations(L.Dense(1))
    with pytest.raises(ValueError, match="not built"):
        with_smooth_activations(keras.Sequential([L.Dense(1, activation="relu")]))
    with pytest.raises(ValueError, match=r"no ReLU.*silu \(3\).*Dropout"):
        with_smooth_activations(sequential("silu"))
    with pytest.raises(ValueError, match="hardened already"):
        with_smooth_activations(JSIGRModel(sequential()))
    with pytest.raises(ValueError, match="Unknown activation"):
        with_smooth_activations(sequential(), "smoothest")
    with pytest.raises(ValueError, match="smooth"):
        with_smooth_activations(sequential(), "relu6")
    for wrong in (None, 3, L.PReLU()):
        with pytest.raises(TypeError, match="function of one tensor"):
            with_smooth_activations(sequential(), wrong)  # type: ignore[arg-type]
    net = Unrebuildable(object.__new__(type("Units", (), {"__len__": lambda s: 3})))
    net(np.ones((1, 4)))
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        with_smooth_activations(net)
    handing = keras.Sequential([keras.Input((4,)), Handing(L.Dense(3, activation="relu"))])
    with pytest.raises(ValueError, match="serialize_keras_object"):
        with_smooth_activations(handing)
    assert relus(handing) == 1


def scaled(factor: float) -> Any:
    """Make functions that differ in all but their name."""

    def act(x: Any) -> Any:
        return factor * x

    return act


def outputs_of(layers: list[Any], x: Any, activation: Any) -> list[Any]:
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers])
    copy = with_smooth_activations(model, activation)
    return [np.asarray(copy(x)), np.asarray(model(x))]


def test_functions_of_one_name_stay_apart() -> None:
    x = np.array([[1.0, 2.0]], "float32")
    for relu, smooth in (("relu", scaled(100.0)), (L.ReLU(), "silu")):
        own = [L.Activation(scaled(2.0)), L.Activation(scaled(10.0))]
        last = relu if isinstance(relu, L.Layer) else L.Activation(relu)
        copy, _ = outputs_of([*own, last], x, smooth)
        function = keras.activations.get(smooth)
        np.testing.assert_allclose(copy, function(20.0 * x), rtol=1e-6)


def test_a_function_that_is_named_like_a_relu() -> None:
    def relu(x: Any) -> Any:
        return 0.3 * x

    def silu(x: Any) -> Any:
        return 0.5 * x

    x = np.array([[-2.0, 4.0]], "float32")
    layers = [L.Activation(relu), L.Activation(silu), L.ReLU()]
    copy, _ = outputs_of(layers, x, "softplus")
    np.testing.assert_allclose(copy, keras.activations.softplus(0.15 * x), rtol=1e-6)


def test_functions_without_a_name_inside_cells_and_wrappers() -> None:
    x = np.random.default_rng(0).uniform(0, 1, (2, 4, 3)).astype("float32")
    layers = [
        L.Activation(lambda x: x + 1.0),
        L.LSTM(3, activation=lambda x: 0.5 * x, return_sequences=True),
        L.Bidirectional(L.GRU(2, activation=keras.activations.softsign)),
        L.Dense(2, activation=lambda x: 2.0 * x),
        L.ReLU(),
    ]
    model = keras.Sequential([keras.Input((4, 3)), *layers])
    copy = with_smooth_activations(model, "elu")
    inner = keras.Sequential([keras.Input((4, 3)), *layers[:-1]])
    np.testing.assert_allclose(copy(x), keras.activations.elu(inner(x)), rtol=1e-5)


def test_an_adapted_normalization_goes_on_normalizing() -> None:
    x = np.random.default_rng(0).normal(100.0, 20.0, (64, 4)).astype("float32")
    norm = L.Normalization()
    norm.adapt(x)
    nested = keras.Sequential([keras.Input((4,)), norm])
    copy, original = outputs_of([nested, L.Activation("relu")], x, "elu")
    np.testing.assert_allclose(np.maximum(copy, 0.0), original, rtol=1e-4, atol=1e-6)


def test_an_adapted_vocabulary_goes_along() -> None:
    codes = np.array([["3"], ["5"], ["9"], ["3"]])
    lookup = L.StringLookup(output_mode="one_hot")
    lookup.adapt(codes)
    code = L.Input((1,), dtype=lookup.dtype)
    model = keras.Model(code, L.Dense(3, activation="relu")(lookup(code)))
    copy = with_smooth_activations(model, "elu")
    assert copy.layers[1].get_vocabulary() == lookup.get_vocabulary()
    x = keras.ops.convert_to_tensor(codes)
    np.testing.assert_allclose(np.maximum(copy(x), 0.0), model(x), atol=1e-6)


X = np.linspace(-4, 4, 81)


def net(activation):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation=activation),
            layers.Flatten(),
            layers.Dense(6, activation=activation),
            layers.Dense(3),
        ]
    )


def test_beta_one_is_silu_and_a_large_one_relu():
    x = tf.constant(X, tf.float32)
    np.testing.assert_allclose(kj.Swish(1.0)(x), tf.nn.silu(x), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(kj.Swish(1e4)(x), tf.nn.relu(x), atol=1e-4)


def test_it_is_silu_at_another_scale():
    x = tf.constant(X)
    for beta in (0.5, 5.0, 20.0):
        np.testing.assert_allclose(
            kj.Swish(beta)(x), tf.nn.silu(beta * x) / beta, rtol=1e-12, atol=1e-15
        )


def test_derivatives_agree_with_differences():
    beta, h = 5.0, 1e-4
    swish = kj.Swish(beta)
    x = tf.constant(X)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = swish(x)
        slope = inner.gradient(y, x)
    curvature = outer.gradient(slope, x)
    above, here, below = swish(x + h), swish(x), swish(x - h)
    np.testing.assert_allclose(slope, (above - below) / (2 * h), atol=1e-6 * beta**2)
    np.testing.assert_allclose(curvature, (above - 2 * here + below) / h**2, atol=1e-5 * beta**3)
    assert float(curvature[40]) == pytest.approx(beta / 2)


def test_beta_is_a_positive_number():
    for beta in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`beta`"):
            kj.Swish(beta)
    with pytest.raises(TypeError, match="`beta`"):
        kj.Swish("5")


def test_it_is_saved_with_the_model(tmp_path):
    model = net(kj.Swish(3.0))
    x = np.random.default_rng(0).uniform(size=(5, 8, 8, 1)).astype("float32")
    model.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert loaded.layers[0].activation == kj.Swish(3.0)
    np.testing.assert_array_equal(loaded(x), model(x))
    copy = keras.models.clone_model(model)
    assert copy.layers[2].activation == kj.Swish(3.0)


@pytest.mark.parametrize(
    "policy", [pytest.param("float32", marks=pytest.mark.slow), "mixed_float16"]
)
def test_it_is_hardened_in_every_precision(policy):
    rng = np.random.default_rng(2)
    x = rng.uniform(size=(32, 8, 8, 1)).astype("float32")
    y = rng.integers(0, 3, 32)
    keras.config.set_dtype_policy(policy)
    try:
        model = net(kj.Swish())
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.layers[0](x).dtype == model.layers[0].compute_dtype
    robust = kj.harden(model, epsilon=0.1, verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("adam", loss, jit_compile=policy == "float32")
    before = model.get_weights()
    history = robust.fit(x, y, epochs=1, batch_size=16, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    moved = [np.abs(a - b).max() for a, b in zip(before, model.get_weights(), strict=True)]
    assert min(moved) > 0
