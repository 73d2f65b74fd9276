"""The contract of the one call."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj
from keras_jsigr import JSIGRModel, PerturbationCache, unwrap

N = 12
ELSEWHERE = (
    "adversary", "input_range", "inputs", "name", "saliency_maps", "seed", "verbose",
    "warmup",
)  # fmt: skip


def harden(model, **settings):
    """Harden in silence: what is no argument of `harden` is one of the recipe."""
    own = {name: settings.pop(name) for name in ELSEWHERE if name in settings}
    recipe = kj.JSIGRConfig(epsilon=0.1, **settings)
    return kj.harden(model, recipe=recipe, **{"verbose": 0, **own})


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
    robust = harden(model)
    assert unwrap(robust) is model
    assert robust.base is model
    assert [id(v) for v in robust.trainable_variables] == [id(v) for v in model.trainable_variables]
    shared = {id(v) for v in model.variables}
    extra = [v for v in robust.variables if id(v) not in shared]
    assert all(v.shape == () and not v.trainable for v in extra)  # settings, trackers


def test_predict_and_evaluate_are_those_of_the_base(data):
    x, y = data
    model = net("softmax")
    robust = compiled(harden(model), from_logits=False)
    robust.fit(x, y)
    compiled(model, from_logits=False)
    np.testing.assert_array_equal(robust.predict(x), model.predict(x))
    np.testing.assert_array_equal(robust(x), model(x))
    ours = robust.evaluate(x, y, verbose=0, return_dict=True)
    theirs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-6)
    np.testing.assert_allclose(robust.evaluate(x, y), model.evaluate(x, y), rtol=1e-6)


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
    "hardened": (lambda: harden(net()), ValueError, "hardened already"),
    "integers": (only_tokens, ValueError, "No input can be regularized"),
    "two outputs": (two_outputs, ValueError, "not a classifier with one output"),
    "per step": (per_step, ValueError, "not a classifier with one output"),
}


def test_bad_models():
    for make, error, message in BAD_MODELS.values():
        with pytest.raises(error, match=message):
            kj.harden(make(), verbose=0)


@pytest.mark.filterwarnings("ignore:You are using a softmax:UserWarning")
def test_a_softmax_of_one_class():
    with pytest.raises(ValueError, match="of one unit is always 1"):
        harden(net("softmax", classes=1))


# What the settings alone refuse is in test_config.py.
BAD_ARGUMENTS = [
    ({"epsilon": 0.0}, ValueError, "`epsilon` is out of range"),
    ({"epsilon": 8}, ValueError, r"such as input_range=\(0, 255\)"),
    ({"recipe": "best"}, ValueError, "Unknown `recipe`: got 'best'"),
    ({"recipe": {"norm": "l1"}}, ValueError, "Unknown `recipe`"),
    ({"input_range": (1.0, 0.0)}, ValueError, "expected low < high"),
    ({"input_range": 255}, TypeError, "is not a pair"),
    ({"inputs": ["pixels"]}, ValueError, r"got \['pixels'\]"),
    ({"inputs": []}, ValueError, "Inputs cannot be regularized"),
    ({"inputs": "pixels"}, ValueError, r"got \['pixels'\]"),
    ({"inputs": ["pixels", "pixels"]}, ValueError, "An input counts once"),
    ({"inputs": 5}, TypeError, "Got int as inputs"),
    ({"adversary": "fgsm"}, TypeError, "as adversary"),
    ({"adversary": kj.attacks.FGSM}, TypeError, r"Got the class FGSM as adversary"),
    ({"saliency_maps": "maps.npz"}, TypeError, "Got str as saliency_maps"),
    ({"warmup": 1.5}, ValueError, "`warmup` is out of range"),
    ({"warmup": -1}, ValueError, "`warmup` is out of range"),
    ({"warmup": "long"}, TypeError, "`warmup` is not a number"),
    ({"seed": 2**31}, ValueError, "`seed` is out of range"),
    ({"strength": 3}, TypeError, r"got \['strength'\]"),
]
BAD_RECIPES = [
    ({"selection": "hard"}, r"\['selective'\] need whole maps"),
    ({"alignment_weight": 0.1}, r"\['alignment'\] need whole maps"),
    ({"live_maps": kj.LiveMaps(samples=26)}, "samples=26.*at most 25"),
    ({"start_radius": 8.0}, "`start_radius` is wider than the inputs: got 8"),
]


def test_bad_arguments():
    for wrong, error, message in BAD_ARGUMENTS:
        with pytest.raises(error, match=message):
            kj.harden(net(), verbose=0, **wrong)


def test_recipes_that_do_not_fit_the_model():
    for wrong, message in BAD_RECIPES:
        with pytest.raises(ValueError, match=message):
            harden(net(), **wrong)


def test_unwrap_refuses_other_models():
    with pytest.raises(TypeError, match="expected the model that `harden` returned"):
        unwrap(net())


# The threat model and the recipe


def test_a_bare_call_tells_its_threat_model(capsys):
    robust = kj.harden(net("softmax", "relu"))
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 3
    assert all(line.startswith("keras_jsigr: ") for line in told)
    assert "maximum norm, epsilon 0.03137 (8/255 of the range), inputs in 0..1" in told[0]
    assert "ends in a softmax" in told[1]
    assert "1 ReLU layers" in told[2]
    assert robust.epsilon == 8 / 255
    assert robust.config == kj.JSIGRConfig.balanced(8 / 255)


def test_silence(capsys):
    kj.harden(net(), epsilon=0.1)  # nothing is assumed, and nothing worth a word
    kj.harden(net("softmax", "relu"), verbose=0)
    keras.config.disable_interactive_logging()
    try:
        kj.harden(net("softmax", "relu"))
    finally:
        keras.config.enable_interactive_logging()
    assert capsys.readouterr() == ("", "")


def test_the_radius_is_in_units_of_the_range():
    robust = kj.harden(net(), input_range=(0, 255), verbose=0)
    assert robust.epsilon == pytest.approx(8.0)
    assert robust.input_range == (0.0, 255.0)
    assert robust.config == kj.JSIGRConfig.balanced(8.0, (0, 255))


def test_a_config_keeps_its_settings(capsys):
    config = kj.JSIGRConfig.balanced(0.1).replace(batch_share=1.0)
    assert kj.harden(net(), recipe=config).config == config
    assert capsys.readouterr().out == ""
    other = kj.harden(net(), 0.2, config)
    assert other.config == config.replace(epsilon=0.2)
    assert "are those for epsilon 0.1" in capsys.readouterr().out
    assert kj.harden(net(), 0.2, kj.JSIGRConfig()).epsilon == 0.2
    assert capsys.readouterr().out == ""


def test_interpretable_makes_its_maps_or_takes_them(data, capsys):
    live = kj.harden(net(), 0.1, "interpretable")
    assert live.config.live_maps == kj.LiveMaps(samples=None)
    assert "needs whole saliency maps" in capsys.readouterr().out
    cache = PerturbationCache.build(live.base, *data, grid=3, verbose=0)
    cached = compiled(kj.harden(net(), 0.1, "interpretable", saliency_maps=cache))
    assert capsys.readouterr().out == ""
    assert cached.config == kj.JSIGRConfig.interpretable(0.1)
    history = cached.fit(*data, batch_size=5, epochs=2, verbose=0).history
    assert history["map_hits"] == [1.0, 1.0]
    assert np.isfinite(history["selective_penalty"]).all()


def test_an_adversary_replaces_the_random_start():
    attack = kj.attacks.FGSM(epsilon=0.1, random_start=True)
    assert kj.harden(net(), 0.2, adversary=attack).config.start_radius == 0.0
    assert kj.harden(net(), adversary=attack, verbose=0).epsilon == 0.1


def test_an_adversary_starts_at_the_random_points_of_a_config():
    """N-FGSM: noise of twice the radius, then a whole step, and no projection."""
    data, seen = np.full((8, 8, 8, 1), 0.5, "float32"), []
    attack = kj.attacks.FGSM(epsilon=0.1)
    robust = kj.harden(net(), 0.1, kj.JSIGRConfig(start_radius=0.2), adversary=attack)
    for adversary in (None, attack):
        labels = tf.one_hot(np.arange(8) % 3, 3)
        seed = tf.constant([0, 1])
        seen += robust._forward.perturbed_inputs(data, labels, seed, adversary).inputs
    assert 0.15 < np.abs(seen[0] - 0.5).max() <= 0.2
    moved = np.abs(seen[1] - seen[0])[:, :7, :7]  # the strides leave out the last pixels
    np.testing.assert_allclose(moved, 0.1, atol=1e-6)


# Keywords of 0.1.0


def test_old_keywords_are_the_new_settings(data):
    cache = PerturbationCache.build(net(), *data, grid=3, verbose=0)
    with pytest.warns(DeprecationWarning, match="deprecated and will go") as told:
        old = kj.harden(
            net(),
            form="separate",
            score="margin",
            projections=2,
            noise=0.05,
            noise_patches=(1, 2),
            quantile=0.3,
            grid=4,
            maps=cache,
            ramp_steps=7,
            delay_steps=3,
            penalty_weights="auto",
            accuracy_drop=0.05,
            epsilon=0.1,
            verbose=0,
        )
    (own,) = [each for each in told if each.filename == __file__]
    message = str(own.message)
    for words in (
        "harden(model, recipe=JSIGRConfig(selective_target='score', num_projections=2",
        "live_maps=LiveMaps(grid=4), start_radius=0.05, start_patch_sizes=(1, 2)",
        "saliency_maps=..., warmup=7",
        "AccuracyConstraint(max_drop=0.05)",
    ):
        assert words in message
    assert old.config == kj.JSIGRConfig(
        epsilon=0.1,
        selective_target="score",
        class_score="margin",
        num_projections=2,
        start_radius=0.05,
        start_patch_sizes=(1, 2),
        selection_quantile=0.3,
        live_maps=kj.LiveMaps(grid=4),
    )
    assert (old.warmup, int(old.delay_steps), old.map_table is None) == (7, 3, False)


@pytest.mark.filterwarnings("ignore:`preset` is deprecated:DeprecationWarning")
def test_an_old_preset_trains_as_it_did():
    with pytest.warns(DeprecationWarning, match="start_patch_sizes"):
        old = kj.harden(net(), **kj.preset("balanced", epsilon=0.1), verbose=0)
    assert old.epsilon == 0.1
    assert (old.config.selective_target, old.config.linearized) == ("score", False)
    assert old.config.selective_weight == pytest.approx(0.12)


# What it says


class OwnSteps(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)

    def compute_loss(self, *args, **kwargs):
        return 1.0 + super().compute_loss(*args, **kwargs)

    def test_step(self, data):
        return {}


def test_it_warns_of_steps_that_are_not_taken():
    model = OwnSteps([layers.Input((4,)), layers.Dense(3)])
    message = "a `train_step` and a `test_step` and a `compute_loss` of its"
    with pytest.warns(UserWarning, match=message) as told:
        kj.harden(model, 0.1)
    assert __file__ in [each.filename for each in told]


def test_channels_come_last():
    inputs = layers.Input((1, 6, 6))
    x = layers.Conv2D(2, 3, data_format="channels_first", name="first")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match=r"channels first in \['first'\]"):
        harden(model)


def test_settings_are_not_exchanged():
    robust = harden(net())
    with pytest.raises(TypeError, match="Harden `unwrap"):
        robust.config = robust.config.replace(start_radius=0.3)
    assert robust.config.start_radius == 0


def test_a_vocabulary_that_was_adapted_survives_saving(tmp_path):
    codes = np.array([["3"], ["5"], ["9"], ["3"]] * 2)
    lookup = layers.StringLookup(output_mode="one_hot")
    lookup.adapt(codes)
    code, x = layers.Input((1,), dtype=lookup.dtype), layers.Input((4,), name="x")
    joined = layers.Concatenate()([lookup(code), x])
    outputs = layers.Dense(3, activation="softmax")(joined)
    robust = harden(keras.Model([code, x], outputs))
    robust.compile("sgd", "sparse_categorical_crossentropy")
    data = [tf.constant(codes), np.random.default_rng(0).random((8, 4), "float32")]
    robust.fit(data, np.arange(8) % 3)
    robust.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config()["spec"] == robust.get_config()["spec"]
    assert loaded.head.layer is loaded.base.layers[-1]
    np.testing.assert_array_equal(loaded.predict(data), robust.predict(data))
    loaded.fit(data, np.arange(8) % 3)


@keras.saving.register_keras_serializable(package="tests_harden")
class HeadFirst(keras.Model):
    """Its layers are named when it is made, so otherwise when it is loaded."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.last = layers.Dense(3, activation="softmax")
        self.hidden = layers.Dense(4, activation="silu")

    def call(self, inputs):
        return self.last(self.hidden(inputs))


def test_another_layer_of_the_name_is_not_the_head():
    keras.utils.clear_session()
    layers.Dense(1)  # the head is the second of its kind
    model = HeadFirst()
    x = np.random.default_rng(0).uniform(size=(2, 4)).astype("float32")
    model(x)
    for version in ("now", "0.1.0"):
        config = harden(model).get_config()
        assert config["spec"]["head"][:2] == ["softmax", "dense_1"]
        if version == "0.1.0":
            del config["spec"]["head"][2]
        keras.utils.clear_session()
        loaded = JSIGRModel.from_config(config)
        assert loaded.base.hidden.name == "dense_1"
        assert loaded.head.layer is loaded.base.last


def test_a_file_without_what_was_found_is_tried_again():
    config = harden(net("softmax")).get_config()
    found = config.pop("spec")
    assert JSIGRModel.from_config(config).get_config()["spec"] == found


# Settings and serialization


def test_config_round_trip():
    robust = harden(
        net("softmax"),
        jacobian_weight=0.02,
        selection_threshold=0.5,
        inputs=None,
        warmup=0.3,
        penalties=(kj.penalties.SaliencyAlignment(0.1, "mine"),),
        live_maps=kj.LiveMaps(samples=None, grid=2),
        input_range=(-1, 1),
        adversary=kj.attacks.FGSM(epsilon=0.1, random_start=True, input_range=(-1, 1)),
        seed=5,
        verbose=0,
    )
    again = JSIGRModel.from_config(robust.get_config())
    assert again.get_config() == robust.get_config()
    assert again.config == robust.config
    assert (again.seed, again.warmup, again.input_range) == (5, 0.3, (-1.0, 1.0))
    assert again.adversary.get_config() == robust.adversary.get_config()
    assert float(again.jacobian_weight) == pytest.approx(0.02)


def test_changed_weights_survive_saving(data, tmp_path):
    robust = compiled(harden(net()))
    robust.jacobian_weight.assign(0.5)
    robust.fit(*data)
    robust.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert float(loaded.jacobian_weight) == 0.5
    assert unwrap(loaded).get_config()["name"] == robust.base.name


def unregistered(y, p):
    return keras.ops.mean(p, axis=-1)


def test_how_the_base_was_compiled_is_not_saved(data, tmp_path):
    """Its loss and metrics may not be loadable; only those of the wrapper count."""
    model = net()
    model.compile("adam", unregistered, metrics=[unregistered])
    robust = compiled(harden(keras.Sequential([layers.Input((8, 8, 1)), model])))
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
    config = harden(model).get_config()
    config["base"] = keras.saving.serialize_keras_object(model)
    assert not unwrap(JSIGRModel.from_config(config)).compiled


def test_penalties_are_per_unit_of_the_range(data):
    """0..255 into a Rescaling layer is 0..1 without: the weights mean the same."""
    x, y = data
    plain = net()
    wide = keras.Sequential([layers.Input((8, 8, 1)), layers.Rescaling(1 / 255), plain])
    for target, norm in (("jacobian", "l1"), ("mixed", "squared"), ("score", "l1")):
        settings = {"selective_target": target, "norm": norm, "warmup": 0}
        reported = []
        for model, inputs, high in ((plain, x, 1), (wide, x * np.float32(255), 255)):
            robust = harden(model, input_range=(0, high), check_gradients=False, **settings)
            compiled(robust, keras.optimizers.SGD(0.0), run_eagerly=True)
            reported.append(robust.train_on_batch(inputs, y, return_dict=True))
        for name in ("loss", "jacobian_penalty", "selective_penalty"):
            assert reported[1][name] == pytest.approx(reported[0][name], rel=1e-4), target


@pytest.mark.parametrize("names", [["z"], None])
def test_inputs_by_name_are_those_by_position(names):
    """Keras takes a dict for a model that lists its inputs; `z` comes before `a`."""
    rng = np.random.default_rng(0)
    z, a = layers.Input((4,), name="z"), layers.Input((4,), name="a")
    x = [rng.uniform(0, 1, (N, 4)).astype("float32") for _ in range(2)]
    outputs = layers.Dense(3)(layers.Concatenate()([z, layers.Rescaling(5.0)(a)]))
    model = keras.Model([z, a], outputs)
    exact = {"estimator": "exact", "selection": "all"}
    sgd = keras.optimizers.SGD(0.0)
    robust = compiled(harden(model, inputs=names, **exact), sgd, run_eagerly=True)
    y = np.arange(N) % 3
    reported = [
        robust.fit(inputs, y).history["jacobian_penalty"][0]
        for inputs in (x, {"z": x[0], "a": x[1]})
    ]
    assert reported[1] == pytest.approx(reported[0], rel=1e-5)


# Adversaries


@pytest.mark.slow
def test_adversary_trains_and_serializes(data, tmp_path):
    attack = kj.attacks.FGSM(epsilon=0.1, random_start=True)
    robust = compiled(harden(net(), adversary=attack))
    plain = compiled(harden(net()))
    plain.base.set_weights(robust.base.get_weights())
    losses = [
        m.fit(*data, batch_size=N, shuffle=False).history["task_loss"][0] for m in (robust, plain)
    ]
    assert losses[0] > losses[1]  # the adversary makes it harder
    robust.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.adversary == robust.adversary == attack.for_model(robust)
    for model in (robust, loaded):
        model.fit(*data, batch_size=N, shuffle=False)
    for a, b in zip(robust.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


# Cached maps


def test_cached_maps_of_other_data_are_refused(data):
    x, y = data
    model = net()
    cache = PerturbationCache.build(model, x, y, grid=3)
    robust = compiled(harden(model, saliency_maps=cache))
    others = tf.data.Dataset.from_tensor_slices((1.0 - x, y)).batch(N)
    for data in ((1.0 - x, y), (others,)):
        with pytest.raises(ValueError, match="cached maps know none"):
            robust.fit(*data, shuffle=False)


def test_maps_of_few_samples_are_told(data):
    x, y = data
    model = net()
    cache = PerturbationCache.build(model, x[:3], y[:3], grid=3)
    robust = compiled(harden(model, saliency_maps=cache))
    with pytest.warns(UserWarning, match="know 25% of the first 12 samples"):
        robust.fit(x, y)


def test_cached_maps_survive_saving(data, tmp_path):
    model = net()
    cache = PerturbationCache.build(model, *data, grid=3)
    robust = compiled(harden(model, saliency_maps=cache))
    robust.fit(*data)
    robust.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.map_table.codes, cache.codes)
    assert loaded.fit(*data).history["map_hits"] == [1.0]


def test_cached_maps_belong_to_one_input(data):
    a, b = layers.Input((4,), name="a"), layers.Input((4,), name="b")
    two = keras.Model([a, b], layers.Dense(3)(layers.Concatenate()([a, b])))
    cache = PerturbationCache.build(net(), *data, grid=2)
    with pytest.raises(ValueError, match="Cached maps belong to one input"):
        harden(two, saliency_maps=cache)


def test_differences_need_single_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    with pytest.raises(ValueError, match="Use estimator='jvp'"):
        harden(net(), estimator="finite_difference", norm="squared")
    harden(net(), estimator="jvp", norm="squared")
