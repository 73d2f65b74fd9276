"""The contract of the one call."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj
from keras_jsigr import JSIGRModel, PerturbationCache, harden, unwrap

N = 12


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.uniform(0, 1, (N, 8, 8, 1)).astype("float32"), np.arange(N) % 3


def net(activation=None, inner="silu", classes=3):
    return keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, strides=2, activation=inner),
            layers.Flatten(),
            layers.Dense(classes, activation=activation),
        ]
    )


def compiled(model, optimizer=None, from_logits=True, **kwargs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits)
    optimizer = optimizer or keras.optimizers.SGD(0.1)
    model.compile(optimizer, loss, metrics=["accuracy"], **kwargs)
    return model


# The wrapper and its base


def test_it_is_the_same_model():
    model = net()
    robust = harden(model, verbose=0)
    assert unwrap(robust) is model
    assert robust.base is model
    assert [id(v) for v in robust.trainable_variables] == [
        id(v) for v in model.trainable_variables
    ]
    shared = {id(v) for v in model.variables}
    extra = [v for v in robust.variables if id(v) not in shared]
    assert all(v.shape == () and not v.trainable for v in extra)  # settings, trackers


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_predict_and_evaluate_are_those_of_the_base(data, activation):
    x, y = data
    model = net(activation)
    robust = compiled(harden(model, verbose=0), from_logits=activation is None)
    robust.fit(x, y, verbose=0)
    compiled(model, from_logits=activation is None)
    np.testing.assert_array_equal(
        robust.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    np.testing.assert_array_equal(robust(x), model(x))
    ours = robust.evaluate(x, y, verbose=0, return_dict=True)
    theirs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-6)
    np.testing.assert_allclose(
        robust.evaluate(x, y, verbose=0), model.evaluate(x, y, verbose=0), rtol=1e-6
    )


def test_training_trains_the_base(data):
    model = net()
    before = model.get_weights()
    compiled(harden(model, verbose=0)).fit(*data, verbose=0)
    assert not np.array_equal(before[0], model.get_weights()[0])


def test_logits_see_behind_the_head(data):
    robust = harden(net("softmax"), verbose=0)
    np.testing.assert_allclose(
        tf.nn.softmax(robust.logits(data[0])), robust(data[0]), atol=1e-6
    )


# Bad input


def unbuilt():
    return keras.Sequential([layers.Dense(3)])


def only_tokens():
    inputs = layers.Input((4,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(5, 3)(inputs))
    return keras.Model(inputs, layers.Dense(3)(x))


def two_outputs():
    inputs = layers.Input((4,))
    return keras.Model(inputs, [layers.Dense(3)(inputs), layers.Dense(2)(inputs)])


def per_step():
    return keras.Sequential([layers.Input((5, 4)), layers.Dense(3)])


BAD_MODELS = {
    "not a model": (lambda: "model.keras", TypeError, "expected a Keras 3 model"),
    "a layer": (lambda: layers.Dense(3), TypeError, "expected a Keras 3 model"),
    "unbuilt": (unbuilt, ValueError, "is not built"),
    "hardened": (lambda: harden(net(), verbose=0), ValueError, "hardened already"),
    "integers": (only_tokens, ValueError, "No input can be regularized"),
    "two outputs": (two_outputs, ValueError, "not a classifier with one output"),
    "per step": (per_step, ValueError, "not a classifier with one output"),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_models(name):
    make, error, message = BAD_MODELS[name]
    with pytest.raises(error, match=message):
        harden(make())


@pytest.mark.filterwarnings("ignore:You are using a softmax:UserWarning")
def test_a_softmax_of_one_class():
    with pytest.raises(ValueError, match="of one unit is always 1"):
        harden(net("softmax", classes=1))


# What the settings alone refuse is in penalties/test_settings.py.
BAD_SETTINGS = [
    ({"jacobian_weight": -0.1}, ValueError, "`jacobian_weight` is out of range"),
    ({"selection": "hard"}, ValueError, "needs whole maps"),
    ({"align_weight": 0.1}, ValueError, "needs whole maps"),
    ({"inputs": ["pixels"]}, ValueError, r"got \['pixels'\]"),
    ({"inputs": []}, ValueError, "Inputs cannot be regularized"),
    ({"inputs": "pixels"}, ValueError, r"got \['pixels'\]"),
    ({"inputs": ["pixels", "pixels"]}, ValueError, "An input counts once"),
    ({"adversary": "fgsm"}, TypeError, "as adversary"),
    ({"adversary": kj.attacks.FGSM}, TypeError, r"Got the class FGSM as adversary"),
    ({"maps": "maps.npz"}, TypeError, "Got str as maps"),
    ({"maps": {}}, TypeError, "Got dict as maps"),
    ({"masks_per_step": 26}, ValueError, "masks_per_step=26, expected at most 25"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), BAD_SETTINGS)
def test_bad_settings(wrong, error, message):
    with pytest.raises(error, match=message):
        harden(net(), verbose=0, **wrong)


def test_whole_maps_may_be_live():
    robust = harden(net(), selection="hard", masks_per_step=None, grid=2, verbose=0)
    assert robust.settings.needs_whole_map


def test_unwrap_refuses_other_models():
    with pytest.raises(TypeError, match="expected the model that `harden` returned"):
        unwrap(net())


# What it says


def test_it_says_what_matters(capsys):
    harden(net("softmax", "relu"))
    said = capsys.readouterr().out
    assert "ends in a softmax" in said
    assert "1 ReLU layers" in said
    assert "with_smooth_activations" in said


class OwnSteps(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)

    def compute_loss(self, *args, **kwargs):
        return 1.0 + super().compute_loss(*args, **kwargs)


def test_it_warns_of_steps_that_are_not_taken():
    model = OwnSteps([layers.Input((4,)), layers.Dense(3)])
    with pytest.warns(UserWarning, match="a `train_step` and a `compute_loss` of its"):
        harden(model, verbose=0)


class OwnMetrics(keras.Sequential):
    def test_step(self, data):
        return {}

    def compute_metrics(self, *args, **kwargs):
        return {}


def test_it_warns_of_metrics_that_are_not_computed():
    model = OwnMetrics([layers.Input((4,)), layers.Dense(3)])
    with pytest.warns(UserWarning, match="a `test_step` and a `compute_metrics`"):
        harden(model, verbose=0)


def test_channels_come_last():
    inputs = layers.Input((1, 6, 6))
    x = layers.Conv2D(2, 3, data_format="channels_first", name="first")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match=r"channels first in \['first'\]"):
        harden(model, verbose=0)


def test_settings_are_not_exchanged():
    robust = harden(net(), verbose=0)
    with pytest.raises(TypeError, match="Harden `unwrap"):
        robust.settings = dataclasses.replace(robust.settings, noise=0.3)
    assert robust.settings.noise == 0


@pytest.mark.parametrize("kind", ["IntegerLookup", "StringLookup"])
def test_a_vocabulary_that_was_adapted_survives_saving(kind, tmp_path):
    codes = np.array([[3], [5], [9], [3]] * 2)
    codes = codes.astype(str) if kind == "StringLookup" else codes
    lookup = getattr(layers, kind)(output_mode="one_hot")
    lookup.adapt(codes)
    code, x = layers.Input((1,), dtype=lookup.dtype), layers.Input((4,), name="x")
    joined = layers.Concatenate()([lookup(code), x])
    outputs = layers.Dense(3, activation="softmax")(joined)
    robust = harden(keras.Model([code, x], outputs), verbose=0)
    robust.compile("sgd", "sparse_categorical_crossentropy")
    data = [tf.constant(codes), np.random.default_rng(0).random((8, 4), "float32")]
    robust.fit(data, np.arange(8) % 3, verbose=0)
    robust.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config()["known"] == robust.get_config()["known"]
    assert loaded.head.layer is loaded.base.layers[-1]
    np.testing.assert_array_equal(
        loaded.predict(data, verbose=0), robust.predict(data, verbose=0)
    )
    loaded.fit(data, np.arange(8) % 3, verbose=0)


def test_a_file_without_what_was_found_is_tried_again():
    config = harden(net("softmax"), verbose=0).get_config()
    found = config.pop("known")
    assert JSIGRModel.from_config(config).get_config()["known"] == found


def test_it_says_nothing_else(capsys):
    harden(net())
    harden(net("softmax", "relu"), verbose=0)
    assert capsys.readouterr() == ("", "")


# Settings and serialization


def test_config_round_trip():
    robust = harden(
        net("softmax"),
        jacobian_weight=0.02,
        threshold=0.5,
        inputs=None,
        input_range=(-1, 1),
        adversary=kj.attacks.FGSM(epsilon=0.1, random_start=True, input_range=(-1, 1)),
        seed=5,
        verbose=0,
    )
    again = JSIGRModel.from_config(robust.get_config())
    assert again.get_config() == robust.get_config()
    assert again.settings == robust.settings
    assert again.adversary.get_config() == robust.adversary.get_config()
    assert float(again.jacobian_weight) == pytest.approx(0.02)


def test_changed_weights_survive_saving(data, tmp_path):
    robust = compiled(harden(net(), verbose=0))
    robust.jacobian_weight.assign(0.5)
    robust.fit(*data, verbose=0)
    robust.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert float(loaded.jacobian_weight) == 0.5
    assert unwrap(loaded).get_config()["name"] == robust.base.name


def unregistered(y, p):
    return keras.ops.mean(p, axis=-1)


@pytest.mark.parametrize("nested", [False, True], ids=["base", "inside"])
def test_how_the_base_was_compiled_is_not_saved(data, tmp_path, nested):
    """Its loss and metrics may not be loadable; only those of the wrapper count."""
    model = net()
    model.compile("adam", unregistered, metrics=[unregistered])
    base = keras.Sequential([layers.Input((8, 8, 1)), model]) if nested else model
    robust = compiled(harden(base, verbose=0))
    robust.save(tmp_path / "m.keras")
    assert model.compiled
    assert model.loss is unregistered
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(robust(data[0]), loaded(data[0]))
    assert loaded.compiled
    assert not unwrap(loaded).compiled


def test_a_file_that_tells_how_the_base_was_compiled_loads():
    """As files of earlier versions do."""
    model = net()
    model.compile("adam", unregistered)
    config = harden(model, verbose=0).get_config()
    config["base"] = keras.saving.serialize_keras_object(model)
    assert not unwrap(JSIGRModel.from_config(config)).compiled


def test_ramp_and_delay(data):
    """No penalty in the loss before its time; then all of it."""
    robust = compiled(
        harden(net(), delay_steps=1, ramp_steps=0, verbose=0), keras.optimizers.SGD(0.0)
    )
    excess = []
    for _ in range(3):
        logs = robust.train_on_batch(*data, return_dict=True)
        robust.reset_metrics()
        excess.append(logs["loss"] - logs["task_loss"])
    assert excess[0] == pytest.approx(0.0, abs=1e-6)
    assert min(excess[1:]) > 1e-4


@pytest.mark.parametrize("form", ["fused", "guided", "separate"])
@pytest.mark.parametrize("norm", ["l1", "squared"])
def test_penalties_are_per_unit_of_the_range(data, form, norm):
    """0..255 into a Rescaling layer is 0..1 without: the weights mean the same."""
    x, y = data
    settings = {"form": form, "norm": norm, "verbose": 0}
    plain = net()
    wide = keras.Sequential([layers.Input((8, 8, 1)), layers.Rescaling(1 / 255), plain])
    reported = []
    for robust, inputs in (
        (harden(plain, **settings), x),
        (harden(wide, input_range=(0, 255), **settings), x * np.float32(255)),
    ):
        compiled(robust, keras.optimizers.SGD(0.0), run_eagerly=True)
        history = robust.fit(inputs, y, batch_size=N, shuffle=False, verbose=0).history
        reported.append(
            [history[k][0] for k in ("loss", "jacobian_penalty", "selective_penalty")]
        )
    np.testing.assert_allclose(*reported, rtol=1e-4)


@pytest.mark.parametrize("names", [["z"], ["a"], None])
def test_inputs_by_name_are_those_by_position(names):
    """Keras takes a dict for a model that lists its inputs; `z` comes before `a`."""
    rng = np.random.default_rng(0)
    z, a = layers.Input((4,), name="z"), layers.Input((4,), name="a")
    x = [rng.uniform(0, 1, (N, 4)).astype("float32") for _ in range(2)]
    outputs = layers.Dense(3)(layers.Concatenate()([z, layers.Rescaling(5.0)(a)]))
    model = keras.Model([z, a], outputs)
    exact = {"estimator": "exact", "selection": "all", "verbose": 0}
    robust = compiled(harden(model, inputs=names, **exact), keras.optimizers.SGD(0.0))
    y = np.arange(N) % 3
    reported = [
        robust.fit(inputs, y, verbose=0).history["jacobian_penalty"][0]
        for inputs in (x, {"z": x[0], "a": x[1]})
    ]
    assert reported[1] == pytest.approx(reported[0], rel=1e-5)


# Adversaries


@pytest.mark.slow
def test_adversary_trains_and_serializes(data, tmp_path):
    attack = kj.attacks.FGSM(epsilon=0.1, random_start=True)
    robust = compiled(harden(net(), adversary=attack, verbose=0))
    plain = compiled(harden(net(), verbose=0))
    plain.base.set_weights(robust.base.get_weights())
    losses = [
        m.fit(*data, batch_size=N, shuffle=False, verbose=0).history["task_loss"][0]
        for m in (robust, plain)
    ]
    assert losses[0] > losses[1]  # the adversary makes it harder
    robust.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.adversary.get_config() == attack.get_config()
    for model in (robust, loaded):
        model.fit(*data, batch_size=N, shuffle=False, verbose=0)
    for a, b in zip(robust.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


# Cached maps


@pytest.mark.parametrize(
    "settings",
    [{}, {"selection": "hard"}, {"form": "separate", "align_weight": 0.1}],
    ids=["soft", "hard", "align"],
)
def test_cached_maps_train(data, settings):
    model = net()
    cache = PerturbationCache.build(model, *data, grid=3, verbose=0)
    robust = compiled(harden(model, maps=cache, verbose=0, **settings))
    history = robust.fit(*data, batch_size=5, epochs=2, verbose=0).history
    assert history["map_hits"] == [1.0, 1.0]
    assert np.isfinite(history["selective_penalty"]).all()


def test_cached_maps_of_other_data_are_refused(data):
    x, y = data
    model = net()
    cache = PerturbationCache.build(model, x, y, grid=3, verbose=0)
    robust = compiled(harden(model, maps=cache, verbose=0))
    others = tf.data.Dataset.from_tensor_slices((1.0 - x, y)).batch(N)
    for data in ((1.0 - x, y), (others,)):
        with pytest.raises(ValueError, match="cached maps know none"):
            robust.fit(*data, verbose=0)


def test_maps_of_few_samples_are_told(data):
    x, y = data
    model = net()
    cache = PerturbationCache.build(model, x[:3], y[:3], grid=3, verbose=0)
    robust = compiled(harden(model, maps=cache, verbose=0))
    with pytest.warns(UserWarning, match="know 25% of the first 12 samples"):
        robust.fit(x, y, verbose=0)


def test_cached_maps_survive_saving(data, tmp_path):
    model = net()
    cache = PerturbationCache.build(model, *data, grid=3, verbose=0)
    robust = compiled(harden(model, maps=cache, verbose=0))
    robust.fit(*data, verbose=0)
    robust.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.map_table.codes, cache.codes)
    assert loaded.fit(*data, verbose=0).history["map_hits"] == [1.0]


def test_cached_maps_belong_to_one_input(data):
    a, b = layers.Input((4,), name="a"), layers.Input((4,), name="b")
    two = keras.Model([a, b], layers.Dense(3)(layers.Concatenate()([a, b])))
    cache = PerturbationCache.build(net(), *data, grid=2, verbose=0)
    with pytest.raises(ValueError, match="Cached maps belong to one input"):
        harden(two, maps=cache, verbose=0)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_differences_need_single_precision(policy):
    keras.config.set_dtype_policy(policy)
    settings = {"norm": "squared", "verbose": 0}
    with pytest.raises(ValueError, match="Use estimator='jvp'"):
        harden(net(), estimator="finite_difference", **settings)
    harden(net(), estimator="jvp", **settings)
