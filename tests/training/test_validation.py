"""What is refused before training: adversaries, losses and data."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj
from keras_jsigr.attacks import FGSM
from keras_jsigr.core.heads import Head
from keras_jsigr.training.data_check import check_training_data
from keras_jsigr.training.input_scales import scales_of
from keras_jsigr.training.validation import check_loss, is_cross_entropy


def hardened(adversary, **settings):
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    return kj.harden(net, 0.1, adversary=adversary, verbose=0, **settings)


class Bare:
    """An adversary that says nothing of itself."""

    def perturb(self, logits_fn, x, targets, *, seed):
        return x


def test_an_adversary_of_another_range_is_refused():
    message = (
        r"got input_range=\(0\.0, 1\.0\), expected \(0\.0, 255\.0\).*"
        r"Pass `input_range=\(0\.0, 255\.0\)` to the attack"
    )
    with pytest.raises(ValueError, match=message):
        hardened(FGSM(epsilon=0.5, input_range=(0, 1)), input_range=(0, 255))


def test_an_adversary_takes_radius_and_range_of_the_model():
    robust = hardened(FGSM(), input_range=(0, 255))
    assert (robust.adversary.epsilon, robust.adversary.input_range) == (0.1, (0, 255))


def test_an_adversary_of_the_same_range_or_of_none_is_taken():
    for adversary in (FGSM(epsilon=8.0, input_range=(0, 255)), Bare()):
        robust = hardened(adversary, input_range=(0, 255))
        assert robust.adversary is adversary


def test_an_adversary_that_leads_to_the_labels_is_refused():
    with pytest.raises(ValueError, match="got targeted=True, expected False"):
        hardened(FGSM(epsilon=0.1, targeted=True))


LINEAR, SOFTMAX, SIGMOID = Head("linear"), Head("softmax"), Head("sigmoid")


losses = keras.losses


def compiled(loss, classes=3):
    model = keras.Sequential([layers.Input((2,)), layers.Dense(classes)])
    model.compile(loss=loss)
    return model


NAMES = [
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "binary_crossentropy",
    "categorical_focal_crossentropy",
    "binary_focal_crossentropy",
]


CLASSES = [
    losses.SparseCategoricalCrossentropy,
    losses.CategoricalCrossentropy,
    losses.BinaryCrossentropy,
    losses.CategoricalFocalCrossentropy,
    losses.BinaryFocalCrossentropy,
]


def test_probabilities_wanted_logits_given():
    for loss in (*NAMES, *(kind() for kind in CLASSES)):
        with pytest.raises(ValueError, match="which reads probabilities, on a model"):
            check_loss(compiled(loss), LINEAR)
        check_loss(compiled(loss), SOFTMAX)


def test_losses_that_always_read_probabilities():
    for loss in (
        "kl_divergence",
        losses.Poisson(),
        losses.Dice(),
        losses.Tversky(),
        losses.categorical_generalized_cross_entropy,
    ):
        with pytest.raises(ValueError, match="which reads probabilities, on a model"):
            check_loss(compiled(loss), LINEAR)
        check_loss(compiled(loss), SOFTMAX)
        check_loss(compiled(loss), SIGMOID)


def test_logits_wanted_probabilities_given():
    for kind in CLASSES:
        for head in (SOFTMAX, SIGMOID):
            with pytest.raises(ValueError, match=f"ends in a {head.kind}"):
                check_loss(compiled(kind(from_logits=True)), head)
        check_loss(compiled(kind(from_logits=True)), LINEAR)


def test_losses_that_are_not_those_of_classifiers():
    for loss in ("mse", "mape", losses.Huber(), losses.mean_absolute_error):
        with pytest.raises(ValueError, match="regression loss"):
            check_loss(compiled(loss), LINEAR)
    for reduction in ("sum", "none", None):
        loss = losses.SparseCategoricalCrossentropy(True, reduction=reduction)
        with pytest.raises(ValueError, match="Penalties are means over the batch"):
            check_loss(compiled(loss), LINEAR)
    for reduction in ("sum_over_batch_size", "mean", "mean_with_sample_weight"):
        loss = losses.SparseCategoricalCrossentropy(True, reduction=reduction)
        check_loss(compiled(loss), LINEAR)
    model = keras.Sequential([layers.Input((2,)), layers.Dense(3)])
    model.compile("adam")
    with pytest.raises(ValueError, match="has no loss"):
        check_loss(model, LINEAR)


class Own(losses.Loss):
    def call(self, y, p):
        return keras.ops.mean(p, axis=-1)


def own(y, p):
    return keras.ops.mean(p, axis=-1)


def test_losses_that_do_not_say_what_they_read_pass():
    for loss in (own, Own(), losses.CategoricalHinge(), [own]):
        check_loss(compiled(loss), LINEAR)
        check_loss(compiled(loss), SOFTMAX)


def test_the_hardened_model_asks():
    robust = kj.harden(compiled("mse"), 0.1)
    x, y = np.zeros((4, 2), "float32"), np.zeros(4)
    with pytest.raises(ValueError, match=r"call `compile\(\)`"):  # the words of Keras
        robust.fit(x, y)
    robust.compile("sgd", "sparse_categorical_crossentropy")
    for call in (robust.fit, robust.train_on_batch):
        with pytest.raises(ValueError, match="Loss and head disagree"):
            call(x, y)


def test_which_losses_are_a_likelihood():
    for loss in (*NAMES, *(kind() for kind in CLASSES)):
        name = loss if isinstance(loss, str) else loss.name
        assert is_cross_entropy(compiled(loss)) == (name in NAMES[:2])
    assert not is_cross_entropy(compiled(lambda y, z: 0.0 * z))


N, CLASSES_DATA_CHECK = 6, 3


def x():
    return np.linspace(0, 1, N * 4, dtype="float32").reshape(N, 4)


def y():
    return np.arange(N) % CLASSES_DATA_CHECK


def check(x, y, **kwargs):
    settings = {
        "specs": tf.TensorSpec((None, 4), tf.float32, "pixels"),
        "regularized": [0],
        "classes": CLASSES_DATA_CHECK,
    }
    scales = scales_of(kwargs.pop("input_range", (0.0, 1.0)), ["pixels"] * 2)
    check_training_data(x, y, scales=scales, **{**settings, **kwargs})


def with_value(array, value):
    array = np.array(array, "float32")
    array.reshape(-1)[-1] = value
    return array


def test_good_labels():
    for labels in (
        y(),
        y()[:, None],
        y().astype("float32"),
        np.eye(CLASSES_DATA_CHECK)[y()],
        np.full((N, CLASSES_DATA_CHECK), 0.3),
        tf.constant(y()),
    ):
        check(x(), labels)


def test_good_inputs():
    check(x() + 1e-5, y())  # rounding is no offence
    check(tf.constant(x()), y())
    check((x() * 255).astype("uint8"), y(), input_range=(0, 255))
    check(x()[..., None], y(), specs=tf.TensorSpec((None, None, 1)))
    check(x(), y(), specs=tf.TensorSpec((None, 4, 1)))  # Keras adds the axis


def test_ignored_labels_are_no_classes():
    for kind in ("int64", "uint8", "float32"):
        labels = with_value(y(), 255).astype(kind)
        check(x(), labels, ignored=[255])
        check(x(), np.full_like(labels, 255), ignored=[255])
        with pytest.raises(ValueError, match="Labels are out of range: got 0 to 9"):
            check(x(), with_value(labels, 9), ignored=[255])


def test_labels_of_one_output():
    check(x(), np.arange(N) % 2, classes=1)
    with pytest.raises(ValueError, match="expected 0 to 1"):
        check(x(), y(), classes=1)


def test_bad_labels():
    for labels, message in (
        (with_value(y(), -1), r"Labels are out of range: got .* 0 to 2"),
        (
            with_value(y(), CLASSES_DATA_CHECK),
            r"Labels are out of range: got .* 0 to 2",
        ),
        (with_value(y(), 0.5), r"Labels are out of range: got .* 0 to 2"),
        (np.eye(CLASSES_DATA_CHECK)[y()] * 255, "Labels are out of range"),
        (with_value(y(), np.nan), "labels hold NaN"),
        (with_value(y(), np.inf), "labels hold NaN"),
        (np.zeros((N, 5)), "Labels have the wrong shape"),
        (np.zeros((N, 2, 2)), "Labels have the wrong shape"),
        (None, "Training needs labels"),
        (y()[:-1], "Got 6 inputs and 5 labels"),
    ):
        with pytest.raises(ValueError, match=message):
            check(x(), labels)


def test_bad_inputs():
    for bad, where in ((np.nan, 0), (np.inf, -1), (-np.inf, 0)):
        array = x()
        array[where, where] = bad
        with pytest.raises(ValueError, match="`pixels` holds NaN or infinity"):
            check(array, y())
    for scale in (255.0, -1.0):
        with pytest.raises(ValueError, match=r"`pixels` leaves.*input_range=\("):
            check(x() * scale, y())
    long = np.zeros((20_000, 4), "float32")
    long[-1] = 2.0
    with pytest.raises(ValueError, match="leaves the declared range"):
        check(long, np.zeros(20_000))
    with pytest.raises(ValueError, match=r"wrong shape: got \(6, 3\), expected"):
        check(x()[:, :3], y())
    with pytest.raises(ValueError, match="inputs are empty"):
        check(x()[:0], y()[:0])
    for array in (np.array([["a"] * 4] * N), np.array([["a"] * 4] * N, object)):
        with pytest.raises(TypeError, match="`pixels` is not numeric"):
            check(array, y())
    specs = {"a": tf.TensorSpec((None, 4)), "b": tf.TensorSpec((None, 4))}
    with pytest.raises(ValueError, match=r"takes 2 inputs, .*: got 1"):
        check(x(), y(), specs=specs)


class Column:
    """Like one of a data frame: an array by conversion only."""

    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)

    def __len__(self):
        return len(self.values)


def test_columns_of_frames_are_checked_as_arrays():
    specs = {n: tf.TensorSpec((None, 1), name=n) for n in "ab"}
    plain = {n: tf.TensorSpec((None,), name=n) for n in "ab"}
    kinds = (lambda v: v, lambda v: v.astype(object), lambda v: v[:, None])
    for kind in kinds:  # numbers among other objects, and frames of one column
        for each in (specs, plain):
            two = {"specs": each, "regularized": [0, 1]}
            check({n: Column(kind(x()[:, 0])) for n in "ab"}, y(), **two)
            wrong = {n: Column(kind(x()[:, 0] * 9)) for n in "ab"}
            with pytest.raises(ValueError, match="`a` leaves the declared range"):
                check(wrong, y(), **two)
    values = x()[:, 0].astype(object)
    for missing, error, words in (
        (None, ValueError, "`a` holds NaN"),
        (complex, TypeError, r"`a` is not numeric.*fill what is missing"),  # like pandas.NA
    ):
        values[0] = missing
        with pytest.raises(error, match=words):
            check({n: Column(values) for n in "ab"}, y(), **two)
    with pytest.raises(ValueError, match=r"2 inputs, \['a', 'b'\]: got the columns \['a'\]"):
        check({"a": Column(x()[:, 0])}, y(), **two)


@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match")
def test_frames_of_pandas_train_as_arrays():
    pd = pytest.importorskip("pandas")
    frame, labels = pd.DataFrame(UNIT, columns=list("abc")), pd.Series(Y)
    more = dict(frame.assign(z=9.0).items())  # Keras takes what it knows
    recipe = kj.JSIGRConfig(selection="all", check_gradients=False)
    for per_column, ways in (
        (
            False,
            (UNIT, frame, frame.astype("float16"), frame.astype("float64").astype({"b": object})),
        ),
        (
            True,
            (dict(frame.items()), {n: frame[[n]] for n in frame}, frame.to_dict("series"), more),
        ),
    ):
        robust = kj.harden(scaled(0, [1] * 3, per_column), 0.1, recipe, warmup=0, verbose=0)
        robust.compile(keras.optimizers.SGD(0.0), LOSS, run_eagerly=True)
        losses = [robust.fit(each, labels, verbose=0).history["task_loss"][0] for each in ways]
        np.testing.assert_allclose(losses, losses[0], rtol=1e-3)
    for wrong in (frame.mask(frame < 0.1), frame * 2.0):
        with pytest.raises(ValueError, match=r"holds NaN|leaves the declared range"):
            robust.fit(dict(wrong.items()), labels)


def test_inputs_that_use_little_of_the_range():
    with pytest.warns(UserWarning, match="`pixels` uses little of the declared range"):
        check(x(), y(), input_range=(0, 255))
    check(np.zeros_like(x()), y(), input_range=(0, 255))  # nothing to tell


def test_only_regularized_inputs_are_held_to_the_range():
    specs = {"a": tf.TensorSpec((None, 4), name="a"), "b": tf.TensorSpec((None, 4))}
    check({"a": x() * 9, "b": x()}, y(), specs=specs, regularized=[1])
    with pytest.raises(ValueError, match="`a` leaves"):
        check({"a": x() * 9, "b": x()}, y(), specs=specs, regularized=[0, 1])


def test_inputs_that_are_not_regularized_may_be_strings():
    specs = {
        "kind": tf.TensorSpec((None, 1), tf.string, "kind"),
        "pixels": tf.TensorSpec((None, 4), name="pixels"),
    }
    kinds = np.array([["a"]] * N)
    for strings in (kinds, tf.constant(kinds)):
        check({"kind": strings, "pixels": x()}, y(), specs=specs, regularized=[1])
    wrong = {"kind": np.array([["a", "b"]] * N), "pixels": x()}
    with pytest.raises(ValueError, match="`kind` has the wrong shape"):
        check(wrong, y(), specs=specs, regularized=[1])


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def fitted(model, kind, batches):
    """Train on batches that can be read once, in one of Keras' ways."""
    stream, fit = iter(batches), {"verbose": 0, "shuffle": False}
    if kind == "generator":
        return model.fit(stream_of(stream), steps_per_epoch=len(batches), verbose=0)
    if kind == "py_dataset":
        return model.fit(Batches(batches), **fit)
    if kind == "train_on_batch":
        return [model.train_on_batch(*batch) for batch in batches]
    if kind == "eager loop":
        return [model.train_step(tuple(map(tf.constant, each))) for each in batches]
    spec = [tf.TensorSpec(part.shape, part.dtype) for part in map(np.asarray, batches[0])]
    spec = tuple(tf.TensorSpec((None, *s.shape[1:]), s.dtype) for s in spec)
    data = tf.data.Dataset.from_generator(lambda: stream, output_signature=spec)
    if kind == "shuffled":
        data = data.unbatch().shuffle(1000).batch(4)
    if kind == "distributed":
        data = tf.distribute.get_strategy().experimental_distribute_dataset(data)
    return model.fit(data, verbose=0)


def stream_of(batches):
    yield from batches


WAYS = ("tf.data", "shuffled", "distributed", "generator", "py_dataset")


def classifier():
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    recipe = kj.JSIGRConfig(selection="all", check_gradients=False)
    robust = kj.harden(net, 0.1, recipe, warmup=0, verbose=0, seed=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("sgd", loss, steps_per_execution=2)
    return robust


@pytest.mark.filterwarnings("ignore:.*shuffle=True:UserWarning")
@pytest.mark.filterwarnings("ignore:.*ran out of data:UserWarning")
@pytest.mark.parametrize("way", WAYS)
def test_streams_lose_nothing_to_the_check(way):
    rng = np.random.default_rng(0)
    batches = [(rng.random((4, 4), "float32"), np.arange(4) % 3) for _ in range(5)]
    robust, seen = classifier(), []
    step = robust.recorded_loss

    def recorded(x, y, *args, **kwargs):
        tf.py_function(lambda x: seen.extend(x.numpy()), [x], [])
        return step(x, y, *args, **kwargs)

    robust.recorded_loss = recorded
    fitted(robust, way, batches)
    given = np.concatenate([x for x, _ in batches])
    assert int(robust.steps_taken.value) == 5
    if way == "shuffled":
        given, seen = np.sort(given, axis=0), np.sort(seen, axis=0)
    np.testing.assert_array_equal(given, np.float32(seen))


@pytest.mark.filterwarnings("ignore:.*shuffle=True:UserWarning")
def test_every_way_in_is_checked_before_weights_move():
    good, labels = np.full((4, 4), 0.5, "float32"), np.arange(4) % 3
    wrong = {
        "leaves the declared range": (good * 255, labels),
        "NaN": (good * np.nan, labels),
        "Labels are out of range": (good, labels + 1),
    }
    for way in (*WAYS, "train_on_batch", "eager loop"):
        robust = classifier()
        before = robust.get_weights()
        for words, batch in wrong.items():
            with pytest.raises(ValueError, match=words):
                fitted(robust, way, [batch, batch])
        np.testing.assert_array_equal(before[0], robust.get_weights()[0])
    with pytest.raises(ValueError, match="dataset is empty"):
        robust.fit(tf.data.Dataset.from_tensor_slices((good, labels)).batch(2).take(0))
    loop = tf.function(lambda x, y: robust.train_step((x, y)))
    loop(good, labels)
    for batch in wrong.values():
        with pytest.raises(tf.errors.InvalidArgumentError):
            loop(*batch)


@pytest.mark.filterwarnings("ignore:.*shuffle=True:UserWarning")
@pytest.mark.filterwarnings("ignore:.*ran out of data:UserWarning")
@pytest.mark.parametrize("eagerly", [False, True])
def test_a_later_batch_of_a_stream_is_refused_too(eagerly):
    good, labels = np.full((4, 4), 0.5, "float32"), np.arange(4) % 3
    rows = np.eye(3, dtype="float32")[labels]
    wrong = {
        "leaves the declared range, or holds NaN: got .* 127.5 expected 0 to 1": (good * 255, rows),
        "or holds NaN": (np.where(np.eye(4) > 0, np.nan, good), rows),
        "out of range: got .* 2(.0)? expected 0 to 1 for a model with 3 classes": (good, 2 * rows),
        "name several classes: got a sum of 2(.0)? expected 1 for exclusive": (good, 1 - rows),
    }
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    undisturbed = classifier()
    start = undisturbed.get_weights()
    undisturbed.compile("sgd", loss, run_eagerly=eagerly)
    undisturbed.fit(stream_of([(good, rows)] * 3), verbose=0)
    for words, batch in wrong.items():
        robust = classifier()
        robust.set_weights(start)
        robust.compile("sgd", loss, run_eagerly=eagerly)
        with pytest.raises(ValueError, match=words) as raised:
            robust.fit(stream_of([(good, rows)] * 3 + [batch]), verbose=0)
        assert "keras_jsigr:" not in str(raised.value)
        variables = robust.trainable_variables, undisturbed.trainable_variables
        for weight, expected in zip(*variables, strict=True):
            np.testing.assert_array_equal(weight, expected)


@pytest.mark.filterwarnings("ignore:.*shuffle=True:UserWarning")
@pytest.mark.filterwarnings("ignore:.*ran out of data:UserWarning")
def test_ignored_labels_may_be_anywhere_in_a_stream():
    good, labels = np.full((4, 4), 0.5, "float32"), np.int64([0, 255, 1, 2])
    robust = classifier()
    robust.compile("adam", keras.losses.SparseCategoricalCrossentropy(True, ignore_class=255))
    robust.fit(stream_of([(good, labels)] * 3), verbose=0)
    with pytest.raises(ValueError, match="Labels are out of range"):
        robust.fit(stream_of([(good, labels), (good, labels + 1)]), verbose=0)


LOW, HIGH = np.float32([29, 126, 0]), np.float32([77, 564, 6])


RNG = np.random.default_rng(0)


UNIT = RNG.random((32, 3), "float32")


Y = (UNIT[:, 0] > 0.5).astype("int64")


LOSS = "binary_crossentropy"


def scaled(low, width, per_column=False):
    """A network of columns in their own units, the same function of scaled ones."""
    keras.utils.set_random_seed(0)
    low, width = np.zeros(3, "float32") + low, np.float32(width)
    if per_column:
        inputs = {n: keras.Input((1,), name=n) for n in "abc"}
        x = layers.Concatenate()(list(inputs.values()))
    else:
        inputs = x = keras.Input((3,))
    x = layers.Normalization(mean=low, variance=width**2)(x)
    x = layers.Dense(8, activation="silu")(x)
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))


def history(model, x, **kwargs):
    """Train in eager steps: to trace one takes longer than to take the two."""
    recipe = kj.JSIGRConfig.balanced(0.05).replace(
        live_maps=kj.LiveMaps(samples=None), start_patch_sizes=(1,)
    )
    robust = kj.harden(model, 0.05, recipe, warmup=0, verbose=0, **kwargs)
    robust.compile(keras.optimizers.SGD(0.1), LOSS, run_eagerly=True)
    fit = robust.fit(x, Y, epochs=2, shuffle=False, verbose=0)
    return robust, {k: np.array(v) for k, v in fit.history.items()}


def assert_close(found, expected):
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-3, err_msg=name)


def test_columns_with_ranges_of_their_own_train_as_scaled_ones(tmp_path):
    _, expected = history(scaled(0, [1, 1, 1]), UNIT)
    raw, width = LOW + UNIT * (HIGH - LOW), HIGH - LOW
    robust, found = history(scaled(LOW, width), raw, input_range=(LOW, HIGH))
    assert_close(found, expected)
    robust.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for model in (robust, loaded):
        model.run_eagerly = True
        model.fit(raw, Y, shuffle=False, verbose=0)
    for a, b in zip(robust.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    for ask in (
        lambda: robust.input_range,
        lambda: kj.attacks.PGD(steps=1)(robust, raw, Y),
        lambda: kj.evaluate_robustness(robust, raw, Y, verbose=0),
    ):
        with pytest.raises(ValueError, match="ranges of their own"):
            ask()
    with pytest.raises(ValueError, match="Column 1 of input"):
        robust.fit(raw * [1, 2, 1], Y)


def test_standardized_columns_train_as_scaled_ones():
    units = (UNIT - UNIT.mean(0)) / UNIT.std(0)
    given = {"input_range": "standardized"}
    _, expected = history(scaled(0, [1, 1, 1]), units, **given)
    raw = LOW + UNIT * (HIGH - LOW)
    robust, found = history(scaled(raw.mean(0), raw.std(0)), raw, **given)
    assert_close(found, expected)
    x, targets = tf.constant(raw[:4]), tf.zeros((4, 1))
    seed = tf.constant([0, 1])
    moved = robust._forward.perturbed_inputs(x, targets, seed, None).inputs[0]
    distance = np.abs(moved - x) / raw.std(0)
    assert distance.max() <= 0.0501
    assert (distance.max(0) > 0.01).all()
    with pytest.raises(ValueError, match="Normalization layers"):
        kj.harden(
            keras.Sequential([keras.Input((3,)), layers.Dense(2)]),
            0.1,
            input_range="standardized",
        )


def test_one_input_per_column_is_one_table():
    x = dict(zip("abc", np.split(UNIT, 3, 1), strict=True))
    _, expected = history(scaled(0, [1, 1, 1]), UNIT)
    assert (expected["selective_penalty"] > 0).all()
    recipe = kj.JSIGRConfig(live_maps=kj.LiveMaps(samples=None), norm="squared", estimator="exact")
    results = []
    for model, data in ((scaled(0, [1] * 3), UNIT), (scaled(0, [1] * 3, True), x)):
        robust = kj.harden(model, 0.1, recipe, warmup=0, verbose=0)
        robust.compile("sgd", LOSS, run_eagerly=True)
        fit = robust.fit(data, Y, shuffle=False, verbose=0)
        results.append(fit.history)
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(value, rel=1e-4), name
    assert results[0]["selective_penalty"] != results[0]["jacobian_penalty"]
    ranges = {n: (float(a), float(b)) for n, a, b in zip("abc", LOW, HIGH, strict=True)}
    raw = {n: v * (b - a) + a for (n, v), (a, b) in zip(x.items(), ranges.values(), strict=True)}
    with pytest.raises(ValueError, match="ranges of the inputs differ") as error:
        robust.fit(raw, Y)
    assert "One range for all is input_range=(0" in str(error.value)
    net = scaled(LOW, HIGH - LOW, True)
    _, found = history(net, raw, input_range=ranges)
    _, as_list = history(scaled(LOW, HIGH - LOW, True), raw, input_range=list(ranges.values()))
    assert_close(as_list, found)


def test_one_column_alone_and_maps_that_mark_nothing():
    net = keras.Sequential([keras.Input((1,)), layers.Dense(8, activation="silu"), layers.Dense(2)])
    logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust = kj.harden(net, 0.1, warmup=0, verbose=0)
    robust.compile("sgd", logits, run_eagerly=True)
    log = robust.fit(UNIT[:, :1], Y, verbose=0).history
    assert log["selective_penalty"] != log["jacobian_penalty"]
    flat = keras.Sequential([keras.Input((3,)), layers.Dense(2, kernel_initializer="zeros")])
    robust = kj.harden(flat, 0.1, warmup=0, verbose=0)
    robust.compile(keras.optimizers.SGD(0.0), logits, run_eagerly=True)
    with pytest.warns(UserWarning, match="saliency maps mark nothing"):
        robust.fit(UNIT, Y, verbose=0)
    robust.fit(UNIT, Y, verbose=0)  # told once


def test_what_cannot_be_trained_is_refused_in_words():
    sparse = keras.Sequential([keras.Input((3,), sparse=True), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"sparse inputs .* x.toarray\(\)"):
        kj.harden(sparse, 0.1)
    robust, _ = history(scaled(0, [1, 1, 1]), UNIT)
    with pytest.raises(TypeError, match=r"is sparse: got SparseTensor"):
        robust.fit(tf.sparse.from_dense(UNIT), Y)
    pixels = keras.Input((4, 4, 1), dtype="uint8")
    bytes_ = layers.Dense(3)(layers.Flatten()(layers.Rescaling(1 / 255)(pixels)))
    with pytest.raises(ValueError, match="give the Input dtype='float32'"):
        kj.harden(keras.Model(pixels, bytes_), 0.1)
    audio = [keras.Input((4000, 1)), layers.Flatten(), layers.Dense(3)]
    with pytest.raises(ValueError, match="too long to blur"):
        kj.harden(keras.Sequential(audio), 0.1)
    for wrong in (
        "standard",
        ([0, 0], [1, 1]),
        {"other": (0, 1)},
        ([1, 0, 0], [1] * 3),
    ):
        with pytest.raises(ValueError, match="input_range"):
            kj.harden(scaled(0, [1, 1, 1]), 0.1, input_range=wrong)


PROGRAM = """
import keras, numpy as np, tensorflow as tf, keras_jsigr as kj
{switch}
x, y = np.random.default_rng(0).random((8, 8, 8, 1), "float32"), np.arange(8) % 3
for recipe in ("balanced", "fast"):
    net = keras.Sequential([keras.Input((8, 8, 1)),
        keras.layers.SeparableConv2D(4, 3, activation="silu"),
        keras.layers.BatchNormalization(), keras.layers.MaxPooling2D(),
        keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")])
    robust = kj.harden(net, 0.1, recipe, warmup=0, verbose=0)
    robust.compile("sgd", "sparse_categorical_crossentropy")
    robust.fit(x, y, verbose=0)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    assert np.isfinite(robust.fit(data, verbose=0).history["loss"]).all()
"""


SWITCHES = (
    "tf.debugging.enable_check_numerics()",
    "tf.config.run_functions_eagerly(True)",
    "keras.utils.set_random_seed(0); tf.config.experimental.enable_op_determinism()",
)


@pytest.mark.slow
@pytest.mark.parametrize("switch", SWITCHES)
def test_it_trains_under(switch):
    program = [sys.executable, "-c", PROGRAM.format(switch=switch)]
    subprocess.run(program, check=True, timeout=300)
