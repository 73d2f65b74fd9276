"""What Keras lets a user do with a classifier, with a hardened one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj
from keras_jsigr.core.heads import head_kind

N = 12
ELSEWHERE = (
    "adversary", "input_range", "inputs", "name", "saliency_maps", "seed", "verbose",
    "warmup",
)  # fmt: skip


def harden(model, **settings):
    """Harden unchecked: what is no argument of `harden` is one of the recipe."""
    own = {name: settings.pop(name) for name in ELSEWHERE if name in settings}
    recipe = kj.JSIGRConfig(**{"epsilon": 0.1, "check_gradients": False, **settings})
    return kj.harden(model, recipe=recipe, **{"verbose": 0, **own})


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
    robust = harden(model, verbose=0)
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


@pytest.mark.parametrize(
    ("probe", "estimator"), [(True, "random_projection"), (False, "finite_difference")]
)
def test_tokens_of_a_subclass_are_not_moved(data, probe, estimator):
    tokens = np.random.default_rng(0).integers(0, 255, (N, 4)).astype("int32")
    x = {"image": data[0] * 255, "table": tokens}
    model = ImageAndTokens()
    model(x)
    settings = {"norm": "squared", "estimator": estimator, "selection": "all"}
    robust = harden(
        model,
        input_range=(0, 255),
        start_radius=8.0,
        check_gradients=probe,
        verbose=0,
        **settings,
    )
    assert robust.regularized == [0]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("sgd", loss, run_eagerly=True)
    model.seen.clear()
    robust.fit(x, data[1], shuffle=False, batch_size=N, verbose=0)
    assert all(t.dtype.name == "int32" for t in model.seen)
    np.testing.assert_array_equal(model.seen[0], tokens)
    with pytest.raises(ValueError, match=r"got \['inputs_1'\], for which the logits"):
        harden(model, inputs=["inputs_1"], verbose=0)


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
        harden(model)


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
    robust = harden(base, verbose=0)
    mask = np.arange(5) < np.array([[5], [3], [2], [1]])
    expected = np.asarray(base(x, mask=mask))
    np.testing.assert_allclose(robust(x, mask=mask), expected, rtol=1e-6)
    assert np.abs(expected - base(x)).max() > 1e-3


def reshaping():
    inputs = keras.Input(batch_shape=(4, 8, 8))
    flat = keras.ops.reshape(inputs, (4, 64))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(flat))


def test_models_of_a_fixed_batch_size(data):
    robust = harden(reshaping(), verbose=0)
    robust.compile("sgd", SPARSE)
    history = robust.fit(data[0][..., 0], data[1], batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"])


def test_grey_images_without_an_axis(data):
    """Keras adds the axis: the same steps as with it."""
    x, y = data
    weights = []
    cache = kj.PerturbationCache.build(net(), x, y, verbose=0)
    for images in (x, x[..., 0]):
        keras.utils.set_random_seed(0)
        robust = harden(net(), saliency_maps=cache)
        robust.compile("sgd", SPARSE)
        history = robust.fit(images, y, shuffle=False, verbose=0).history
        assert history["map_hits"] == [1.0]
        weights.append(robust.get_weights())
    for left, right in zip(*weights, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)


def test_cached_maps_of_the_second_input_of_a_dataset(data):
    x, y = data
    a, b = keras.Input((2,), name="a"), keras.Input((8, 8, 1), name="b")
    outputs = layers.Dense(3)(layers.Concatenate()([a, layers.Flatten()(b)]))
    model = keras.Model([a, b], outputs)
    cache = kj.PerturbationCache.build(net(), x, y, verbose=0)
    robust = harden(model, saliency_maps=cache, inputs=["b"])
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


@pytest.mark.parametrize("source", ["live", "cached", pytest.param("none", marks=pytest.mark.slow)])
def test_sides_that_a_pipeline_lost_are_those_of_the_model(data, source):
    x, y = data
    settings = {"selection": "random"} if source == "none" else {}
    if source == "cached":
        settings["saliency_maps"] = kj.PerturbationCache.build(net(), x, y, verbose=0)
    histories = []
    for sides in ((8, 8), (None, None)):
        keras.utils.set_random_seed(0)
        robust = harden(net(), **settings)
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
    robust = harden(model, selection="all")
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
    robust = harden(net())
    robust.compile("sgd", "categorical_crossentropy")
    assert np.isfinite(robust.fit(dataset, shuffle=False, verbose=0).history["loss"])


IGNORING = {
    "jacobian": {},
    "mixed": {"selective_target": "mixed"},
    "margin": {"selective_target": "score", "class_score": "margin"},
    "alignment": {"selective_target": "score", "alignment_weight": 0.1},
    "sarfa": {"live_maps": kj.LiveMaps(samples=None, grid=2, score="sarfa")},
    "adversary": {"adversary": kj.attacks.FGSM(epsilon=0.1)},
}


@pytest.mark.filterwarnings("ignore:The saliency maps mark nothing")
def test_ignored_examples(data):
    """No label, no loss: they count for nothing, as Keras' loss does it."""
    x, y = data
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    for name, settings in IGNORING.items():
        robust = harden(net(), **{"live_maps": kj.LiveMaps(samples=None, grid=2), **settings})
        robust.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
        history = robust.fit(x, np.where(y == 0, -1, y), verbose=0).history
        assert all(np.isfinite(value).all() for value in history.values()), name
        assert all(np.isfinite(w).all() for w in robust.base.get_weights()), name
        none = robust.fit(x, np.full(N, -1), verbose=0).history
        assert none["jacobian_penalty"] == none["selective_penalty"] == [0.0], name


def test_examples_that_the_loss_ignores_do_not_dilute_the_penalties(data):
    x, y = data[0], 1 + np.arange(N) % 2
    settings = {"selective_target": "score", "selection": "all", "estimator": "exact"}
    robust = harden(net(), warmup=0, **settings)
    for ignored in (-1, 0):
        loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=ignored)
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
    robust = harden(model, input_range=(0.0, 1e6))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile(keras.optimizers.SGD(0.0), loss, metrics=["accuracy"])
    constraint = kj.callbacks.AccuracyConstraint(reference=0.5)
    history = robust.fit(
        x, data[1], validation_data=(x, data[1]), callbacks=[constraint], verbose=0
    ).history
    expected = model.predict(x, verbose=0)
    np.testing.assert_array_equal(robust.predict(x, verbose=0), expected)
    assert history["val_loss"] == pytest.approx(history["task_loss"], rel=1e-3)
    share = history["accuracy_slack"][0] + 0.48
    assert share == pytest.approx(np.mean(expected.argmax(-1) == data[1]))


def test_differences_of_inputs_in_half_precision(data):
    settings = {
        "norm": "squared",
        "estimator": "finite_difference",
        "check_gradients": False,
    }
    robust = harden(net(), verbose=0, selection="all", **settings)
    robust.compile(keras.optimizers.SGD(0.0), SPARSE, run_eagerly=True)
    x = data[0].astype("float16")
    found = []
    for each in (x.astype("float32"), x):
        robust.steps_taken.assign(0)
        robust.reset_metrics()
        found.append(robust.train_on_batch(each, data[1], return_dict=True)["loss"])
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_an_adversary_that_starts_anywhere_in_its_ball(data):
    """Batches of unknown length, one channel, live maps: the sides stay known."""
    attack = kj.attacks.PGD(epsilon=0.5, norm="l1", steps=2)
    robust = harden(net(), adversary=attack)
    robust.compile("sgd", SPARSE)
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(8)
    history = robust.fit(dataset, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_a_head_with_an_activity_regularizer_is_refused():
    outputs = layers.Dense(3, "softmax", activity_regularizer="l2")
    model = keras.Sequential([keras.Input((4,)), outputs])
    with pytest.raises(ValueError, match="activity_regularizer=L2, expected None"):
        harden(model, verbose=0)


def test_padding_outside_of_the_range():
    model = keras.Sequential(
        [keras.Input((5, 2)), layers.Masking(-1.0), layers.LSTM(3), layers.Dense(3)]
    )
    x = np.random.default_rng(0).uniform(size=(N, 5, 2)).astype("float32")
    x[:, 3:] = -1.0
    robust = harden(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("sgd", loss, run_eagerly=True)
    assert np.isfinite(robust.fit(x, np.arange(N) % 3, verbose=0).history["loss"])
    x[0, 0, 0] = -1.0  # beside another value: no padding
    with pytest.raises(ValueError, match="leaves the declared range"):
        robust.fit(x, np.arange(N) % 3, verbose=0)


def iter_of(batches):
    yield from batches


def test_hinge_takes_its_own_labels(data):
    net = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(1)])
    losses = []
    for labels in (data[1] % 2 * 2 - 1, data[1] % 2):
        robust = harden(net)
        robust.compile(keras.optimizers.SGD(0.0), "hinge")
        fit = robust.fit(data[0], labels, shuffle=False, verbose=0)
        losses.append({k: v for k, v in fit.history.items() if "penalty" in k})
    assert losses[0] == losses[1]  # hinge turns 0 into -1 itself
    robust.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="got -1 to 1, expected 0 to 1"):
        robust.fit(data[0], data[1] % 2 * 2 - 1)


def test_labels_of_several_classes_need_a_loss_that_says_so(data):
    x, y = data[0], np.eye(3, dtype="float32")[data[1]]
    y[0] = 1.0
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten()])
    model.add(layers.Dense(3))

    def own(y_true, y_pred):
        binary = keras.losses.binary_crossentropy
        return binary(y_true, y_pred, from_logits=True)

    robust = harden(model)
    robust.compile("sgd", own, run_eagerly=True)
    stream = tf.data.Dataset.from_tensor_slices((x, y)).skip(1).batch(4)
    ways = ((x, y), (x[1:], y[1:]), (stream,), (iter_of([(x[1:], y[1:])]),))
    for way in ways:  # one-hot rows may be of either kind
        with pytest.raises(ValueError, match="exclude each other is not known"):
            robust.fit(*way, shuffle=False, verbose=0)
    told = kj.harden(model, 0.1, verbose=0, multi_label=True)
    told.compile("sgd", own, run_eagerly=True)
    told.fit(x, y, verbose=0)
    assert head_kind(told, told.head, 3) == "sigmoid"
    told = kj.harden(model, 0.1, verbose=0, multi_label=False)
    told.compile("sgd", own, run_eagerly=True)
    with pytest.raises(ValueError, match="several classes: got a sum of 3"):
        told.fit(x, y, verbose=0)
    told.fit(x[1:], y[1:], verbose=0)
    told.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="Loss and multi_label disagree"):
        told.fit(x, y, verbose=0)
    softmax = keras.Sequential([model, layers.Softmax()])
    with pytest.raises(ValueError, match="Head and multi_label disagree"):
        kj.harden(softmax, 0.1, verbose=0, multi_label=True)
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
        robust = harden(model, inputs=names)
        robust.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=True)
        if names == "image":
            found = robust.train_on_batch([data[0], None], data[1], return_dict=True)
            model.compile("sgd", loss)
            expected = model.test_on_batch([data[0], None], data[1])
            assert found["task_loss"] == pytest.approx(float(expected), rel=1e-5)
        else:
            with pytest.raises(ValueError, match="`more` is regularized: got None"):
                robust.train_on_batch([data[0], None], data[1])


def test_weights_of_eager_steps_are_those_of_compiled_ones(data):
    x, y = data
    results = []
    for eager in (False, True):
        keras.utils.set_random_seed(0)
        robust = harden(net())
        robust.compile(keras.optimizers.SGD(0.0), SPARSE, run_eagerly=eager)
        weighted = robust.train_on_batch(x, y, sample_weight=np.linspace(0.0, 2.0, N))
        robust.reset_metrics()
        classes = robust.train_on_batch(x, y, class_weight={0: 1.0, 1: 2.0, 2: 0.5})
        results.append([weighted, classes])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5)


def test_a_loss_by_the_name_of_the_output(data):
    x, y = data
    robust = harden(net())
    robust.compile("sgd", {"label": SPARSE}, metrics={"label": ["accuracy"]})
    history = robust.fit(x, y, validation_data=(x, y), verbose=0).history
    assert {"accuracy", "val_accuracy"} <= set(history)


def test_a_wrong_and_sure_answer_keeps_its_gradient():
    """Keras takes the loss at the logits behind a head: it does not saturate."""
    for eager, head in ((True, "softmax"), (False, "sigmoid")):
        model = keras.Sequential([keras.Input((1,)), layers.Dense(2, head)])
        model.set_weights([np.array([[60.0, -60.0]]), np.zeros(2)])
        robust = harden(model, jacobian_weight=0.0, selective_weight=0.0)
        loss = SPARSE if head == "softmax" else "binary_crossentropy"
        y = np.array([1]) if head == "softmax" else np.array([[0.0, 1.0]])
        robust.compile(keras.optimizers.SGD(1.0), loss, run_eagerly=eager)
        found = robust.train_on_batch(np.ones((1, 1), "float32"), y)
        assert found[0] == pytest.approx(120.0 if head == "softmax" else 60.0)
        assert np.abs(model.get_weights()[0] - [[60.0, -60.0]]).max() > 0.4


# Weights, warm-up and files


def linear(**settings):
    """A linear model whose penalties are known exactly."""
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3)])
    exact = {"selection": "all", "estimator": "exact"}
    return harden(model, **{**exact, **settings})


def compiled(robust, rate=0.0):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile(keras.optimizers.SGD(rate), loss)
    return robust


ROWS = np.random.default_rng(0).uniform(size=(32, 4)).astype("float32")
LABELS = np.arange(32) % 3


def excess(robust, **kwargs):
    """Return the penalties' part of the loss of every epoch, one step each."""
    kwargs = {"batch_size": 32, "verbose": 0, **kwargs}
    history = robust.fit(ROWS, LABELS, **kwargs).history
    return np.subtract(history["loss"], history["task_loss"])


@pytest.mark.parametrize("way", ["compile", "load"])
def test_the_warmup_goes_on(tmp_path, way):
    """Compiling anew is a new optimizer, whose iterations start at zero."""
    robust = compiled(linear(warmup=0.5))
    first = excess(robust, epochs=8)  # full after four steps of eight
    np.testing.assert_allclose(first / first[-1], [0.25, 0.5, 0.75, *[1.0] * 5], 1e-4)
    half = compiled(linear(warmup=0.5))
    half.base.set_weights(robust.base.get_weights())

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    excess(half, epochs=8, callbacks=[Stop()])
    assert half.warmup_progress() == 0.75
    if way == "load":
        half.save(tmp_path / "m.keras")
        half = keras.models.load_model(tmp_path / "m.keras")
    compiled(half)
    rest = excess(half, epochs=3)
    np.testing.assert_allclose(rest / first[-1], [0.75, 1.0, 1.0], 1e-4)
    assert int(half.steps_taken) == 5


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return ROWS[:8], LABELS[:8]


def streamed(batches=None):
    dataset = tf.data.Dataset.from_tensors((ROWS[:8], LABELS[:8])).repeat(batches)
    return dataset.filter(lambda x, y: True) if batches == 3 else dataset


FITS = {
    "arrays": ((ROWS, LABELS), {"batch_size": 8, "epochs": 10}, 0.2, 8),
    "later epochs": ((ROWS, LABELS), {"batch_size": 8, "epochs": 4, "initial_epoch": 2}, 0.5, 4),
    "split": ((ROWS, LABELS), {"batch_size": 8, "validation_split": 0.5}, 1.0, 2),
    "PyDataset": ((Batches(),), {"epochs": 2}, 0.2, 2),
    "tf.data": ((streamed(6),), {"epochs": 2}, 0.5, 6),
    "steps_per_epoch": ((streamed(),), {"steps_per_epoch": 4}, 0.5, 2),
    "unknown length": ((streamed(3),), {}, 0.5, 200),
    "steps": ((ROWS, LABELS), {"batch_size": 8}, 7, 7),
    "one step": ((ROWS, LABELS), {"batch_size": 8}, 1, 1),
    "none": ((ROWS, LABELS), {"batch_size": 8}, 0.0, 0),
}


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_a_share_of_the_steps_of_fit(capsys):
    class OneStep(keras.callbacks.Callback):
        """The rest would find nothing new."""

        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    for name, (data, kwargs, warmup, steps) in FITS.items():
        robust = compiled(linear(warmup=warmup))
        robust.run_eagerly = True
        settings = {"shuffle": False, "verbose": 0, "callbacks": [OneStep()], **kwargs}
        robust.fit(*data, **settings)
        assert int(robust.warmup_steps) == steps, name
        told = capsys.readouterr().out
        assert ("the length of the data is unknown" in told) == (steps == 200), name


def test_a_loop_without_fit_warms_up_over_200_steps():
    robust = compiled(linear(warmup=0.3))
    robust.train_on_batch(ROWS, LABELS)
    assert int(robust.warmup_steps) == -1
    assert robust.warmup_progress() == pytest.approx(2 / 200)


def test_accumulated_gradients_count_every_training_step():
    robust = linear(warmup=1.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), loss)
    robust.fit(ROWS, LABELS, batch_size=8, verbose=0)
    assert int(robust.warmup_steps) == int(robust.steps_taken) == 4
    assert int(robust.optimizer.iterations) == 2


def test_a_number_in_place_of_the_variable_is_refused():
    robust = linear()
    variable = robust.jacobian_weight
    with pytest.raises(TypeError, match=r"Use `model.jacobian_weight.assign\(1.0\)`"):
        robust.jacobian_weight = 1.0
    assert robust.jacobian_weight is variable


def test_loaded_settings_are_told(tmp_path):
    path = tmp_path / "robust.weights.h5"
    linear(warmup=200).save_weights(path)
    other = linear(jacobian_weight=0.5, warmup=7)
    message = (
        r"jacobian_weight 0\.5 by 0\.005, warmup_steps 7 by 200.*"
        r"model\.jacobian_weight\.assign\(0\.5\); model\.warmup_steps\.assign\(7\)"
    )
    with pytest.warns(UserWarning, match=message):
        other.load_weights(path)
    assert float(other.jacobian_weight) == pytest.approx(0.005)
    other.load_weights(path)  # nothing is left to tell: warnings are errors here
    linear().load_weights(path)
    # A whole model comes with its settings, and nothing is told.
    other.jacobian_weight.assign(0.25)
    other.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.training_state() == other.training_state()
    assert loaded.training_state()["jacobian_weight"] == 0.25


def test_a_hardened_model_answers_as_its_base():
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, activation="silu", name="hidden")(inputs)
    base = keras.Model(inputs, layers.Dense(3, name="logits")(hidden))
    robust = harden(base)
    assert robust.inputs is base.inputs
    assert robust.input is base.input
    assert robust.output is base.output
    cut = keras.Model(robust.input, robust.get_layer("hidden").output)
    assert cut(np.zeros((1, 4), "float32")).shape == (1, 8)
    lines = []
    robust.summary(print_fn=lines.append)
    assert "hidden" in "".join(map(str, lines))


def test_names_of_files_are_checked_before_anything_is_written(tmp_path):
    net = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    robust = harden(net)
    robust.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    path = tmp_path / "best.h5"
    saves = keras.callbacks.ModelCheckpoint(str(path))
    for write in (
        lambda: robust.save(path),
        lambda: robust.fit(np.zeros((4, 4)), np.zeros(4), callbacks=[saves]),
    ):
        with pytest.raises(ValueError, match=r"saved as \.keras files"):
            write()
    assert not path.exists()
    net.save_weights(tmp_path / "plain.weights.h5")
    for name, reason in (("plain.weights.h5", ""), ("plain.npz", "File format not supported")):
        words = rf"(?s)hardened model: {reason}.*model\.base\.load_weights"
        with pytest.raises(ValueError, match=words):
            robust.load_weights(tmp_path / name)


def test_the_old_format_is_refused_whoever_saves(tmp_path):
    """Keras' own function does not ask the model."""
    robust = harden(keras.Sequential([keras.Input((4,)), layers.Dense(3)]))
    words = r"saved as .keras files: got 'an .h5 file'.*`unwrap"
    for model in (robust, keras.Sequential([keras.Input((4,)), robust])):
        for name in ("a.h5", "a.hdf5"):
            with pytest.raises(ValueError, match=words):
                keras.saving.save_model(model, tmp_path / name)
        keras.saving.save_model(model, tmp_path / "a.keras")
        again = keras.saving.load_model(tmp_path / "a.keras")
        x = np.eye(4, dtype="float32")
        np.testing.assert_array_equal(again(x), model(x))
