"""What Keras lets a user do with a classifier, with a hardened one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj
from keras_jsigr import harden
from keras_jsigr.core.heads import Head
from keras_jsigr.training.accuracy_constraint import Validation, measure_accuracy

N = 12


SPARSE = "sparse_categorical_crossentropy"


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.uniform(size=(N, 8, 8, 1)).astype("float32"), np.arange(N) % 3


def net():
    inputs = keras.Input((8, 8, 1), name="image")
    hidden = layers.Flatten()(layers.Conv2D(2, 3, activation="silu")(inputs))
    outputs = layers.Dense(3, activation="softmax", name="label")(hidden)
    return keras.Model(inputs, outputs)


class TwoInputs(keras.Model):
    """Subclassed, a dict of inputs, no `mask` in its `call`."""

    def __init__(self):
        super().__init__()
        self.flatten, self.head = layers.Flatten(), layers.Dense(3)

    def call(self, inputs, training=None):
        parts = [self.flatten(inputs["image"]), inputs["table"]]
        return self.head(keras.ops.concatenate(parts, axis=-1))


def test_several_inputs_of_a_subclass(data):
    x = {"image": data[0], "table": data[0][:, 0, :4, 0]}
    model = TwoInputs()
    model(x)
    robust = kj.harden(model, verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("sgd", loss, metrics=["accuracy"])
    robust.fit(x, data[1], validation_data=(x, data[1]), verbose=0)
    expected = np.asarray(model(x))
    np.testing.assert_allclose(robust.predict(x, verbose=0), expected, rtol=1e-5)
    np.testing.assert_allclose(robust(x), expected, rtol=1e-5)
    assert len(robust.evaluate(x, data[1], verbose=0)) == 2


class ImageAndTokens(TwoInputs):
    """Its specs do not tell that `table` holds integers."""

    def __init__(self):
        super().__init__()
        self.embed, self.seen = layers.Embedding(256, 2), []

    def call(self, inputs, training=None):
        self.seen.append(inputs["table"])
        table = self.flatten(self.embed(inputs["table"]))
        return super().call({"image": inputs["image"], "table": table})


@pytest.mark.parametrize("probe", [False, True])
@pytest.mark.parametrize("estimator", ["vjp", "finite_difference"])
def test_tokens_of_a_subclass_are_not_moved(data, probe, estimator):
    tokens = np.random.default_rng(0).integers(0, 255, (N, 4)).astype("int32")
    x = {"image": data[0] * 255, "table": tokens}
    model = ImageAndTokens()
    model(x)
    settings = {"norm": "squared", "estimator": estimator, "selection": "all"}
    robust = kj.harden(
        model, input_range=(0, 255), noise=8.0, probe=probe, verbose=0, **settings
    )
    assert robust.regularized == [0]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("sgd", loss, run_eagerly=True)
    model.seen.clear()
    robust.fit(x, data[1], shuffle=False, batch_size=N, verbose=0)
    assert all(t.dtype.name == "int32" for t in model.seen)
    np.testing.assert_array_equal(model.seen[0], tokens)
    with pytest.raises(ValueError, match=r"got \['inputs_1'\], for which the logits"):
        kj.harden(model, inputs=["inputs_1"], verbose=0)


def test_a_subclass_of_tokens_alone_is_refused():
    class Tokens(TwoInputs):
        def __init__(self):
            super().__init__()
            self.embed = layers.Embedding(5, 2)

        def call(self, inputs, training=None):
            return self.head(self.flatten(self.embed(inputs)))

    model = Tokens()
    model(np.zeros((1, 4), "int32"))
    with pytest.raises(ValueError, match="harden the part of the model that comes"):
        kj.harden(model, probe=False, verbose=0)


class Masked(keras.Model):
    """Subclassed, with a `mask` in its `call`."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = layers.LSTM(3), layers.Dense(3)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        return self.head(self.lstm(inputs, mask=mask))


def test_a_mask_reaches_a_base_that_takes_it():
    base = Masked()
    x = np.random.default_rng(0).uniform(size=(4, 5, 2)).astype("float32")
    base(x)
    robust = kj.harden(base, verbose=0)
    mask = np.arange(5) < np.array([[5], [3], [2], [1]])
    expected = np.asarray(base(x, mask=mask))
    np.testing.assert_allclose(robust(x, mask=mask), expected, rtol=1e-6)
    assert np.abs(expected - base(x)).max() > 1e-3


def reshaping():
    inputs = keras.Input(batch_shape=(4, 8, 8))
    flat = keras.ops.reshape(inputs, (4, 64))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(flat))


def test_models_of_a_fixed_batch_size(data):
    robust = kj.harden(reshaping(), verbose=0)
    robust.compile("sgd", SPARSE)
    history = robust.fit(data[0][..., 0], data[1], batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"])


def test_grey_images_without_an_axis(data):
    """Keras adds the axis: the same steps as with it."""
    x, y = data
    weights = []
    for images in (x, x[..., 0]):
        keras.utils.set_random_seed(0)
        robust = kj.harden(net(), verbose=0, probe=False)
        robust.compile("sgd", SPARSE)
        robust.fit(images, y, shuffle=False, verbose=0)
        weights.append(robust.get_weights())
    for left, right in zip(*weights, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)


def test_cached_maps_of_grey_images_without_an_axis(data):
    x, y = data
    cache = kj.PerturbationCache.build(net(), x, y, verbose=0)
    robust = kj.harden(net(), maps=cache, verbose=0, probe=False)
    robust.compile("sgd", SPARSE)
    history = robust.fit(x[..., 0], y, verbose=0).history
    assert history["map_hits"] == [1.0]


def test_cached_maps_of_the_second_input_of_a_dataset(data):
    x, y = data
    a, b = keras.Input((2,), name="a"), keras.Input((8, 8, 1), name="b")
    outputs = layers.Dense(3)(layers.Concatenate()([a, layers.Flatten()(b)]))
    model = keras.Model([a, b], outputs)
    cache = kj.PerturbationCache.build(net(), x, y, verbose=0)
    robust = kj.harden(model, maps=cache, inputs=["b"], verbose=0, probe=False)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("sgd", loss)
    dataset = tf.data.Dataset.from_tensors(((x[:, 0, :2, 0], x), y))
    history = robust.fit(dataset, shuffle=False, verbose=0).history
    assert history["map_hits"] == [1.0]


def lost_sides(x, y, signature):
    """A pipeline that knows no sides, as one that decodes image files."""
    dataset = tf.data.Dataset.from_generator(
        lambda: iter([(x, y)]),
        output_signature=(signature, tf.TensorSpec((None,), tf.int64)),
    )
    return dataset.apply(tf.data.experimental.assert_cardinality(1))


@pytest.mark.parametrize("source", ["live", "cached", "none"])
def test_sides_that_a_pipeline_lost_are_those_of_the_model(data, source):
    x, y = data
    settings = {"selection": "random"} if source == "none" else {}
    if source == "cached":
        settings["maps"] = kj.PerturbationCache.build(net(), x, y, verbose=0)
    histories = []
    for sides in ((8, 8), (None, None)):
        keras.utils.set_random_seed(0)
        robust = kj.harden(net(), verbose=0, probe=False, **settings)
        robust.compile(keras.optimizers.SGD(0.0), SPARSE)
        signature = tf.TensorSpec((None, *sides, 1), tf.float32)
        fit = robust.fit(lost_sides(x, y, signature), shuffle=False, verbose=0)
        histories.append(fit.history)
    assert histories[0]["selective_penalty"][0] > 0
    for name, value in histories[0].items():
        np.testing.assert_allclose(histories[1][name], value, rtol=1e-5)


def test_sides_that_the_model_leaves_open_stay_open():
    model = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            layers.Conv2D(2, 3, activation="silu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    robust = kj.harden(model, selection="all", verbose=0, probe=False)
    robust.compile("sgd", SPARSE)
    x = np.full((2, 9, 5, 1), 0.5, "float32")
    dataset = lost_sides(x, np.zeros(2), tf.TensorSpec((None, None, None, 1)))
    assert np.isfinite(robust.fit(dataset, shuffle=False, verbose=0).history["loss"])


def test_labels_whose_side_a_pipeline_lost(data):
    x, y = data
    dataset = tf.data.Dataset.from_generator(
        lambda: iter([(x, np.eye(3)[y])]),
        output_signature=(tf.TensorSpec(x.shape), tf.TensorSpec((None, None))),
    ).apply(tf.data.experimental.assert_cardinality(1))
    robust = kj.harden(net(), verbose=0, probe=False)
    robust.compile("sgd", "categorical_crossentropy")
    assert np.isfinite(robust.fit(dataset, shuffle=False, verbose=0).history["loss"])


IGNORING = {
    "fused": {},
    "guided": {"form": "guided"},
    "margin": {"form": "separate", "score": "margin"},
    "align": {"form": "separate", "align_weight": 0.1},
    "sarfa": {"saliency_score": "sarfa"},
    "adversary": {"adversary": kj.attacks.FGSM(epsilon=0.1)},
}


@pytest.mark.parametrize("name", IGNORING)
def test_ignored_examples(data, name):
    """No label, no loss: they count for nothing, as Keras' loss does it."""
    x, y = data
    settings = {"masks_per_step": None, "grid": 2, **IGNORING[name]}
    robust = kj.harden(net(), verbose=0, probe=False, **settings)
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    robust.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    history = robust.fit(x, np.where(y == 0, -1, y), verbose=0).history
    assert all(np.isfinite(value).all() for value in history.values())
    assert all(np.isfinite(w).all() for w in robust.base.get_weights())
    none = robust.fit(x, np.full(N, -1), verbose=0).history
    assert none["jacobian_penalty"] == none["selective_penalty"] == [0.0]


@pytest.mark.parametrize("ignored", [-1, 0])
def test_examples_that_the_loss_ignores_do_not_dilute_the_penalties(data, ignored):
    x, y = data[0], 1 + np.arange(N) % 2
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=ignored)
    settings = {"form": "separate", "selection": "all", "estimator": "exact"}
    robust = kj.harden(net(), ramp_steps=0, verbose=0, probe=False, **settings)
    robust.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=True)
    alone = robust.train_on_batch(x, y, return_dict=True)
    robust.reset_metrics()
    more = np.concatenate([x, 1.0 - x, x]), np.concatenate([y, np.full(2 * N, ignored)])
    among = robust.train_on_batch(*more, return_dict=True)
    assert alone["selective_penalty"] > 0.0
    for name, value in alone.items():
        np.testing.assert_allclose(among[name], value, rtol=1e-5, err_msg=name)


def test_inputs_that_half_precision_cannot_hold(data):
    """A first layer in float32 is there for them: nothing casts them before."""
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Normalization(mean=5e5, variance=9e10, dtype="float32"),
            layers.Flatten(),
            layers.Dense(3, dtype="float32"),
        ]
    )
    x = 1e6 * data[0]
    settings = {"penalty_weights": "auto", "reference_accuracy": 0.5}
    wide = {"input_range": (0.0, 1e6), "verbose": 0, "probe": False}
    robust = kj.harden(model, **settings, **wide)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile(keras.optimizers.SGD(0.0), loss, metrics=["accuracy"])
    history = robust.fit(x, data[1], validation_data=(x, data[1]), verbose=0).history
    expected = model.predict(x, verbose=0)
    np.testing.assert_array_equal(robust.predict(x, verbose=0), expected)
    assert history["val_loss"] == pytest.approx(history["task_loss"], rel=1e-3)
    share, _ = measure_accuracy(
        model, Validation(x, data[1]), "softmax", Head("linear")
    )
    assert share == pytest.approx(np.mean(expected.argmax(-1) == data[1]))


def test_differences_of_inputs_in_half_precision(data):
    settings = {"norm": "squared", "estimator": "finite_difference", "probe": False}
    robust = kj.harden(net(), verbose=0, selection="all", **settings)
    robust.compile(keras.optimizers.SGD(0.0), SPARSE, run_eagerly=True)
    x = data[0].astype("float16")
    found = []
    for each in (x.astype("float32"), x):
        robust.steps_taken.assign(0)
        robust.reset_metrics()
        found.append(robust.train_on_batch(each, data[1], return_dict=True)["loss"])
    assert found[1] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_an_adversary_that_starts_anywhere_in_its_ball(data, norm):
    """Batches of unknown length, one channel, live maps: the sides stay known."""
    attack = kj.attacks.PGD(epsilon=0.5, norm=norm, steps=2)
    robust = kj.harden(net(), adversary=attack, verbose=0, probe=False)
    robust.compile("sgd", SPARSE)
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(8)
    history = robust.fit(dataset, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_a_head_with_an_activity_regularizer_is_refused():
    outputs = layers.Dense(3, "softmax", activity_regularizer="l2")
    model = keras.Sequential([keras.Input((4,)), outputs])
    with pytest.raises(ValueError, match="activity_regularizer=L2, expected None"):
        kj.harden(model, verbose=0)


def test_padding_outside_of_the_range():
    model = keras.Sequential(
        [keras.Input((5, 2)), layers.Masking(-1.0), layers.LSTM(3), layers.Dense(3)]
    )
    x = np.random.default_rng(0).uniform(size=(N, 5, 2)).astype("float32")
    x[:, 3:] = -1.0
    robust = kj.harden(model, verbose=0, probe=False)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("sgd", loss)
    assert np.isfinite(robust.fit(x, np.arange(N) % 3, verbose=0).history["loss"])
    x[0, 0, 0] = -1.0  # beside another value: no padding
    with pytest.raises(ValueError, match="leaves the declared range"):
        robust.fit(x, np.arange(N) % 3, verbose=0)


def test_labels_of_several_classes_need_a_loss_that_says_so(data):
    x, y = data[0], np.eye(3, dtype="float32")[data[1]]
    y[0] = 1.0
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten()])
    model.add(layers.Dense(3))

    def own(y_true, y_pred):
        binary = keras.losses.binary_crossentropy
        return binary(y_true, y_pred, from_logits=True)

    robust = kj.harden(model, verbose=0, probe=False)
    robust.compile("sgd", own, run_eagerly=True)
    with pytest.raises(ValueError, match="several classes: got a sum of 3"):
        robust.fit(x, y, verbose=0)
    robust.fit(x[1:], y[1:], verbose=0)  # one-hot rows may be of either kind
    sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("sgd", sparse, run_eagerly=True)
    robust.fit(x, data[1][:, None], verbose=0)  # a column of indices is no row
    named = keras.losses.BinaryCrossentropy(from_logits=True)
    robust.compile("sgd", named, run_eagerly=True)
    robust.fit(x, y, verbose=0)


def test_an_optional_input_may_be_left_out(data):
    image = keras.Input((8, 8, 1), name="image")
    more = keras.Input((3,), name="more", optional=True)

    class Join(layers.Layer):
        def call(self, image, more=None):
            flat = keras.ops.reshape(image, (-1, 64))
            return flat if more is None else flat + 0.0 * more[:, :1]

        def compute_output_shape(self, image_shape, more_shape=None):
            return (image_shape[0], 64)

    model = keras.Model([image, more], layers.Dense(3)(Join()(image, more)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for names in ("image", ["image", "more"]):
        robust = kj.harden(model, inputs=names, verbose=0, probe=False)
        robust.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=True)
        if names == "image":
            found = robust.train_on_batch([data[0], None], data[1], return_dict=True)
            model.compile("sgd", loss)
            expected = model.test_on_batch([data[0], None], data[1])
            assert found["task_loss"] == pytest.approx(float(expected), rel=1e-5)
        else:
            with pytest.raises(ValueError, match="`more` is regularized: got None"):
                robust.train_on_batch([data[0], None], data[1])


def test_inputs_that_are_no_names():
    with pytest.raises(TypeError, match="Got int as inputs"):
        kj.harden(net(), inputs=5)


def test_weights_of_eager_steps_are_those_of_compiled_ones(data):
    x, y = data
    results = []
    for eager in (False, True):
        keras.utils.set_random_seed(0)
        robust = kj.harden(net(), verbose=0, probe=False)
        robust.compile(keras.optimizers.SGD(0.0), SPARSE, run_eagerly=eager)
        weighted = robust.train_on_batch(x, y, sample_weight=np.linspace(0.0, 2.0, N))
        robust.reset_metrics()
        classes = robust.train_on_batch(x, y, class_weight={0: 1.0, 1: 2.0, 2: 0.5})
        results.append([weighted, classes])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5)


def test_a_loss_by_the_name_of_the_output(data):
    x, y = data
    robust = kj.harden(net(), verbose=0, probe=False)
    robust.compile("sgd", {"label": SPARSE}, metrics={"label": ["accuracy"]})
    history = robust.fit(x, y, validation_data=(x, y), verbose=0).history
    assert {"accuracy", "val_accuracy"} <= set(history)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_a_wrong_and_sure_answer_keeps_its_gradient(eager, head):
    """Keras takes the loss at the logits behind a head: it does not saturate."""
    model = keras.Sequential([keras.Input((1,)), layers.Dense(2, head)])
    model.set_weights([np.array([[60.0, -60.0]]), np.zeros(2)])
    settings = {"jacobian_weight": 0.0, "selective_weight": 0.0, "probe": False}
    robust = kj.harden(model, verbose=0, **settings)
    loss = SPARSE if head == "softmax" else "binary_crossentropy"
    y = np.array([1]) if head == "softmax" else np.array([[0.0, 1.0]])
    robust.compile(keras.optimizers.SGD(1.0), loss, run_eagerly=eager)
    found = robust.train_on_batch(np.ones((1, 1), "float32"), y)
    assert found[0] == pytest.approx(120.0 if head == "softmax" else 60.0)
    assert np.abs(model.get_weights()[0] - [[60.0, -60.0]]).max() > 0.4


def hardened(**settings):
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3)])
    return harden(model, probe=False, verbose=0, **settings)


def test_a_number_in_place_of_the_variable_is_refused():
    robust = hardened()
    variable = robust.jacobian_weight
    with pytest.raises(TypeError, match=r"Use `model.jacobian_weight.assign\(1.0\)`"):
        robust.jacobian_weight = 1.0
    assert robust.jacobian_weight is variable


def test_loaded_settings_are_told(tmp_path):
    path = tmp_path / "robust.weights.h5"
    hardened().save_weights(path)
    other = hardened(jacobian_weight=0.5, ramp_steps=7)
    message = (
        r"jacobian_weight 0\.5 by 0\.005, ramp_steps 7 by 200.*"
        r"model\.jacobian_weight\.assign\(0\.5\); model\.ramp_steps\.assign\(7\)"
    )
    with pytest.warns(UserWarning, match=message):
        other.load_weights(path)
    assert float(other.jacobian_weight) == pytest.approx(0.005)
    other.load_weights(path)  # nothing is left to tell: warnings are errors here
    hardened().load_weights(path)


def test_a_loaded_model_has_the_assigned_settings_without_a_word(tmp_path):
    robust = hardened()
    robust.jacobian_weight.assign(0.5)
    robust.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.adjusted() == robust.adjusted()
    assert loaded.adjusted()["jacobian_weight"] == 0.5
