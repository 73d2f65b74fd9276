"""Do the classes exclude each other? Head and loss tell."""

import itertools
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, losses

from keras_jsigr.core.heads import (
    Head,
    find_head,
    head_kind,
    ignored_labels,
    looks_like_probabilities,
)
from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.scores import class_score, class_targets, predicted_targets

LINEAR, SOFTMAX, SIGMOID = Head("linear"), Head("softmax"), Head("sigmoid")


def own(y, z):
    return z


def compiled(loss, classes=3):
    model = keras.Sequential([layers.Input((2,)), layers.Dense(classes)])
    model.compile(loss=loss)
    return model


def test_loss_and_head_tell_the_kind():
    for loss, head, classes, kind in (
        (losses.BinaryCrossentropy(from_logits=True), LINEAR, 3, "sigmoid"),
        (losses.BinaryFocalCrossentropy(from_logits=True), LINEAR, 3, "sigmoid"),
        (losses.CategoricalCrossentropy(from_logits=True), LINEAR, 3, "softmax"),
        (losses.CategoricalCrossentropy(from_logits=True), LINEAR, 1, "sigmoid"),
        ("binary_crossentropy", SIGMOID, 3, "sigmoid"),
        ("binary_crossentropy", SOFTMAX, 2, "softmax"),
        (own, LINEAR, 3, "softmax"),
    ):
        assert head_kind(compiled(loss, classes), head, classes) == kind, (loss, head)


def test_what_was_never_compiled_says_by_its_head():
    model = keras.Sequential([layers.Input((2,)), layers.Dense(3)])
    assert head_kind(model, LINEAR, 3) == "softmax"
    assert head_kind(model, SIGMOID, 3) == "sigmoid"
    assert ignored_labels(model) == []


def test_ignored_labels_of_all_losses():
    assert ignored_labels(compiled("categorical_crossentropy")) == []
    loss = losses.SparseCategoricalCrossentropy(ignore_class=-1)
    assert ignored_labels(compiled(loss)) == [-1]


X = np.random.default_rng(0).uniform(0, 1, (2, 8, 8, 3)).astype("float32")


class WithHead(keras.Model):
    """The head is made first and used last."""

    def __init__(self, activation):
        super().__init__()
        self.last = layers.Dense(4, activation=activation)
        self.gate = layers.Dense(6, activation="sigmoid")
        self.flatten = layers.Flatten()

    def call(self, x):
        return self.last(self.gate(self.flatten(x)))


class Bare(keras.Model):
    """Its softmax belongs to no layer."""

    def __init__(self):
        super().__init__()
        self.flatten = layers.Flatten()
        self.dense = layers.Dense(4)

    def call(self, x):
        return keras.ops.softmax(self.dense(self.flatten(x)))


def called(model):
    model(X)
    return model


def sequential(*tail):
    return keras.Sequential([layers.Input((8, 8, 3)), layers.Flatten(), *tail])


def functional(activation):
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(6, 3)(inputs)
    gate = layers.Dense(6, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 6))(gate)])  # squeeze and excite
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(4, activation=activation)(x))


def nested(activation):
    inner = keras.Sequential([layers.Input((5,)), layers.Dense(4, activation=activation)])
    inputs = layers.Input((8, 8, 3))
    return keras.Model(inputs, inner(layers.Dense(5)(layers.Flatten()(inputs))))


MODELS = {
    "sequential": lambda a: sequential(layers.Dense(4, activation=a)),
    "functional with gate": functional,
    "subclassed": lambda a: called(WithHead(a)),
    "nested": nested,
    "activation layer": lambda a: sequential(layers.Dense(4), layers.Activation(a or "linear")),
    "float32 head": lambda a: sequential(
        layers.Dense(4, dtype="mixed_float16"),
        layers.Activation(a or "linear", dtype="float32"),
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_finds_the_head_and_its_logits(kind):
    for activation in (None, "softmax", "sigmoid"):
        model = MODELS[kind](activation)
        outputs, weights = model(X).numpy(), model.get_weights()
        head = find_head(model, X)
        assert head.kind == (activation or "linear")
        assert (head.layer is None) == (activation is None)
        with head.removed():
            logits = model(X)
        np.testing.assert_allclose(head.activate(logits), outputs, atol=1e-6)
        if activation:
            assert not np.allclose(logits, outputs)
        np.testing.assert_array_equal(model(X), outputs)  # restored
        for left, right in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(left, right)


def test_softmax_layer():
    model = sequential(layers.Dense(4), layers.Softmax())
    outputs = model(X).numpy()
    head = find_head(model, X)
    assert (head.kind, head.layer) == ("softmax", model.layers[-1])
    with head.removed():
        np.testing.assert_allclose(tf.nn.softmax(model(X)), outputs, atol=1e-6)
    assert "call" not in vars(model.layers[-1])
    np.testing.assert_array_equal(model(X), outputs)


def test_probabilities_without_a_head_are_refused():
    with pytest.raises(ValueError, match="none of its layers ends in a softmax"):
        find_head(called(Bare()), X)


def test_only_one_row_of_scores_per_example():
    inputs = layers.Input((8, 8, 3))
    x = layers.Flatten()(inputs)
    two = keras.Model(inputs, [layers.Dense(2)(x), layers.Dense(3)(x)])
    for model in (two, sequential(layers.Reshape((4, 48)))):
        with pytest.raises(ValueError, match="not a classifier with one output"):
            find_head(model, X)


@pytest.mark.parametrize("tail", ["dense", "softmax layer"])
def test_removed_nests_and_restores_after_exceptions(tail):
    tails = {
        "dense": [layers.Dense(4, activation="softmax")],
        "softmax layer": [layers.Dense(4), layers.Softmax()],
    }
    model = sequential(*tails[tail])
    outputs, head = model(X).numpy(), find_head(model, X)
    with head.removed():
        with head.removed():
            logits = model(X).numpy()
        with pytest.raises(RuntimeError), head.removed():
            raise RuntimeError
        np.testing.assert_array_equal(model(X), logits)  # still removed
    np.testing.assert_array_equal(model(X), outputs)


def test_removed_in_several_threads():
    model = sequential(layers.Dense(4, activation="softmax"))
    outputs, head = model(X).numpy(), find_head(model, X)
    with head.removed():
        logits = model(X).numpy()
    gate, wrong = threading.Barrier(4), []

    def work():
        gate.wait()
        for _ in range(20):
            with head.removed():
                if not np.array_equal(model(X), logits):
                    wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    np.testing.assert_array_equal(model(X), outputs)


def test_looks_like_probabilities():
    for rows, expected in (
        ([[0.2, 0.8], [1.0, 0.0]], True),
        ([[0.2, 0.9], [1.0, 0.0]], False),
        ([[-0.2, 1.2]], False),
        ([[1.0]], False),
        ([[0.25, 0.75], [np.nan, np.nan]], True),
        ([[np.nan, np.nan]], False),
    ):
        assert looks_like_probabilities(np.array(rows, "float32")) is expected, rows


def test_activations_of_tensorflow_are_heads_too():
    for function, kind in ((tf.nn.softmax, "softmax"), (tf.nn.sigmoid, "sigmoid")):
        net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation=function)])
        x = np.random.default_rng(0).uniform(0, 1, (4, 2)).astype("float32")
        head, p = find_head(net, x), net(x)
        assert head.kind == kind
        with head.removed():
            np.testing.assert_allclose(head.activate(net(x)), p, rtol=1e-5)


def test_a_lookalike_is_not_the_head():
    """log_softmax has softmax in its name, but not its values."""
    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="log_softmax")])
    assert find_head(net, np.ones((2, 2), "float32")).kind == "linear"


class InnerSoftmax(keras.Model):
    """Ends in an operation, and has a softmax further in."""

    def __init__(self):
        super().__init__()
        self.gate = layers.Dense(5, activation="softmax")
        self.dense = layers.Dense(3, kernel_initializer="zeros")

    def call(self, x):
        return tf.nn.softmax(self.dense(self.gate(x)))


def test_equal_outputs_hide_no_inner_softmax():
    net, x = InnerSoftmax(), np.ones((2, 4), "float32")
    net(x)
    with pytest.raises(ValueError, match="none of its layers ends in a softmax"):
        find_head(net, x)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_a_head_is_found_where_outputs_tell_nothing(kind):
    for kernel, value in itertools.product(("zeros", "glorot_uniform"), (0.5, np.nan)):
        end = layers.Dense(3, activation=kind, kernel_initializer=kernel)
        net = keras.Sequential([keras.Input((2,)), layers.Dense(3), end])
        head = find_head(net, np.full((2, 2), value, "float32"))
        assert (head.kind, head.layer) == (kind, end)


class Ends(keras.Model):
    """One unit, squashed by the model itself."""

    def __init__(self, end):
        super().__init__()
        self.dense, self.end = layers.Dense(1), end

    def call(self, x):
        return self.end(self.dense(x))


def test_one_probability_of_no_layer_is_refused():
    """It would be taken for a logit: all decisions would be yes."""
    x = np.random.default_rng(0).uniform(size=(4, 6)).astype("float32")
    for end in (tf.sigmoid, keras.ops.hard_sigmoid, lambda z: 0.5 + 0.5 * tf.tanh(z)):
        model = Ends(end)
        model(x)
        with pytest.raises(ValueError, match="none of its layers ends in a sigmoid"):
            find_head(model, x)


def test_one_logit_between_zero_and_one_is_a_logit():
    x = np.full((4, 6), 0.1, "float32")
    for end in (tf.identity, lambda z: 0.1 + 0.05 * tf.tanh(z)):
        model = Ends(end)
        model(x)
        model.dense.set_weights([np.full((6, 1), 0.5), np.full(1, 0.2)])
        assert 0 < float(model(x)[0, 0]) < 1
        assert find_head(model, x).kind == "linear"


def ending_in(activation, width):
    head = keras.layers.Dense(width, activation=activation)
    return keras.Sequential([keras.Input(X.shape[1:]), keras.layers.Flatten(), head])


def test_as_logits_of_keras_models_agree_with_their_probabilities():
    model = ending_in("softmax", 4)
    logits = as_logits(model, X)(X)
    np.testing.assert_allclose(tf.nn.softmax(logits), model(X), atol=1e-6)


def test_as_logits_of_callables():
    z = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], "float32")
    x = tf.zeros((2, 1))
    p = tf.nn.softmax(z)
    np.testing.assert_allclose(as_logits(lambda x: z, x)(x), z)
    np.testing.assert_allclose(as_logits(lambda x: p, x)(x), np.log(p), rtol=1e-5)
    answer = {"class": tf.argmax(z, 1), "logits": z}
    np.testing.assert_allclose(as_logits(lambda x: answer, x)(x), z)
    served = {"output_0": p}
    np.testing.assert_allclose(as_logits(lambda x: served, x)(x), np.log(p), rtol=1e-5)


def test_as_logits_of_certain_probabilities_is_finite():
    certain = as_logits(lambda x: tf.constant([[1.0, 0.0]]), tf.zeros((1, 1)))
    assert np.isfinite(certain(tf.zeros((1, 1)))).all()


def test_as_logits_of_one_output_has_two_columns():
    model = ending_in("sigmoid", 1)
    logits = as_logits(model, X)(X).numpy()
    assert logits.shape == (2, 2)
    assert (logits[:, 0] == 0).all()
    np.testing.assert_allclose(tf.nn.softmax(logits)[:, 1:], model(X), rtol=1e-5, atol=1e-6)


def test_as_logits_refuses_what_does_not_classify():
    with pytest.raises(TypeError, match="expected a Keras model or a callable"):
        as_logits("model.keras", X)
    with pytest.raises(ValueError, match=r"expected \(B, C\)"):
        as_logits(lambda x: x, X)


def test_a_layer_named_logits_is_a_layer():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.logits = keras.layers.Dense(6), keras.layers.Dense(3)

        def call(self, x):
            return self.logits(self.hidden(x))

    x, net = X[:, 0, :6, 0], Net()
    np.testing.assert_allclose(as_logits(net, x)(x), net(x), rtol=1e-6)


class WithLogits(keras.Model):
    """A softmax without a layer, and a method that tells what is before it."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def logits(self, x):
        return self.dense(x)

    def call(self, x):
        return tf.nn.softmax(self.logits(x))


class WithOtherLogits(keras.Model):
    """Of a gate, or of a latent variable of another shape."""

    def __init__(self, of):
        super().__init__()
        self.gate, self.dense, self.of = (
            keras.layers.Dense(3),
            keras.layers.Dense(3),
            of,
        )

    def logits(self, z):
        return self.gate(z[:, : self.of])

    def call(self, x):
        return self.dense(x) * tf.sigmoid(self.gate(x))


def test_a_method_logits_is_asked_for_those_of_the_answers_alone():
    x = X[:, 0, :6, 0]
    model = WithLogits()
    model(x)
    np.testing.assert_array_equal(as_logits(model, x)(x), model.dense(x))
    for of in (6, 4):
        other = WithOtherLogits(of)
        other(x)
        np.testing.assert_allclose(as_logits(other, x)(x), other(x), rtol=1e-6)


def test_one_probability_of_a_callable_is_no_logit():
    model = ending_in("sigmoid", 1)
    expected = as_logits(model, X)(X)
    found = as_logits(lambda x: model(x), X)(X)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # A number between zero and one that goes beyond elsewhere is a logit.
    one = np.full((4, 1), 0.5, "float32")
    np.testing.assert_array_equal(as_logits(lambda x: x, one)(one)[:, 1:], one)


def test_certain_probabilities_in_half_precision_have_finite_gradients():
    z = tf.constant([[9.0, -20.0, 0.0]])

    def served(x):
        return tf.nn.softmax(tf.cast(x, tf.float16))

    with tf.GradientTape() as tape:
        tape.watch(z)
        first = as_logits(served, z)(z)[:, 0]
    assert np.isfinite(tape.gradient(first, z)).all()


class Restless(keras.Model):
    """Moves batch statistics, a seed and a state of its own whenever it is called."""

    def __init__(self):
        super().__init__()
        self.norm = keras.layers.BatchNormalization()
        self.drop = keras.layers.Dropout(0.5, seed=3)
        self.head = keras.layers.Dense(3, activation="softmax")

    def call(self, x, training=None):
        return self.head(self.drop(self.norm(x, training=True), training=True))


def test_asking_a_model_for_logits_leaves_it_alone_and_random_as_it_is():
    model, x = Restless(), np.random.default_rng(0).random((4, 5), "float32")
    model(x)
    before = [np.array(v) for v in model.variables]
    logits = as_logits(model, x)
    compiled = tf.function(logits)
    answers = [logits(x), logits(x), compiled(x), compiled(x)]
    for first, second in itertools.combinations(answers, 2):
        assert np.any(first != second)
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, variable)
    # From the same seed on, it draws what the model would have drawn.
    assert np.allclose(tf.nn.softmax(answers[0]), model(x), atol=1e-6)


B, C = 5, 4


def log_softmax(z):
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def log_sigmoid(z):
    return -np.log1p(np.exp(-z))


def softmax_score(z, t, score):
    if score == "log_prob":
        return (t * log_softmax(z)).sum(1)
    if score == "logit":
        return (t * z).sum(1)
    y, rows = t.argmax(1), np.arange(len(z))
    others = np.stack([np.delete(np.exp(row), k) for row, k in zip(z, y, strict=True)])
    return z[rows, y] - np.log(others.sum(1))


def sigmoid_score(z, t, score):
    signed = np.where(t > 0.5, z, -z)
    return (log_sigmoid(signed) if score == "log_prob" else signed).sum(1)


@pytest.fixture
def z_scores(rng):
    return rng.standard_normal((B, C)) * 2


@pytest.mark.parametrize("score", ["log_prob", "margin", "logit"])
def test_scores_and_their_gradients_are_those_of_the_closed_form(z_scores, rng, score):
    hard, many = np.eye(C)[rng.integers(0, C, B)], rng.integers(0, 2, (B, C)).astype(float)
    soft = rng.dirichlet(np.ones(C), B)  # the margin is of one class
    for t, kind, closed in (
        (hard, "softmax", softmax_score),
        (many, "sigmoid", sigmoid_score),
        *(() if score == "margin" else [(soft, "softmax", softmax_score)]),
    ):
        variable = tf.constant(z_scores, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(variable)
            value = class_score(variable, tf.constant(t, tf.float32), score, kind)
        np.testing.assert_allclose(value, closed(z_scores, t, score), rtol=2e-5, atol=1e-5)
        wanted = np.zeros_like(z_scores)
        for c in range(C):
            step = 1e-6 * np.eye(C)[c]
            wanted[:, c] = closed(z_scores + step, t, score) - closed(z_scores - step, t, score)
        gradient = tape.gradient(value, variable)
        np.testing.assert_allclose(gradient, wanted / 2e-6, atol=1e-5)


def test_the_gradient_of_log_prob_is_that_of_the_margin_where_unsure(z_scores, rng):
    z_scores, y = tf.constant(z_scores, tf.float32), rng.integers(0, C, B)
    t = class_targets(y, z_scores)
    gradients = {}
    for score in ("log_prob", "margin"):
        with tf.GradientTape() as tape:
            tape.watch(z_scores)
            value = class_score(z_scores, t, score)
        gradients[score] = tape.gradient(value, z_scores).numpy()
    unsure = 1.0 - np.exp(log_softmax(z_scores.numpy()))[np.arange(B), y, None]
    np.testing.assert_allclose(
        gradients["log_prob"], unsure * gradients["margin"], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("classes", [1, C])
def test_soft_multi_labels_are_minus_the_cross_entropy(z_scores, rng, classes):
    z_scores, t = z_scores[:, :classes], rng.uniform(0, 1, (B, classes))
    t[0] = 0.0

    def closed(z_scores):
        return (t * log_sigmoid(z_scores) + (1 - t) * log_sigmoid(-z_scores)).sum(1)

    variable, targets = tf.constant(z_scores, tf.float32), tf.constant(t, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        value = class_score(variable, targets, "log_prob", "sigmoid")
    entropy = keras.losses.binary_crossentropy(targets, variable, from_logits=True)
    np.testing.assert_allclose(value, -classes * entropy, rtol=1e-5)
    np.testing.assert_allclose(value, closed(z_scores), rtol=1e-5)
    steps = 1e-6 * np.eye(classes)
    wanted = [(closed(z_scores + step) - closed(z_scores - step)) / 2e-6 for step in steps]
    gradient = tape.gradient(value, variable)
    np.testing.assert_allclose(gradient, np.stack(wanted, 1), atol=1e-5)


def test_scores_are_finite_far_out():
    z = tf.constant([[1e4, -1e4, 0.0]])
    for score in ("log_prob", "margin", "logit"):
        for kind in ("softmax", "sigmoid"):
            with tf.GradientTape() as tape:
                tape.watch(z)
                value = class_score(z, class_targets([1], z), score, kind)
            assert np.isfinite(value).all()
            assert np.isfinite(tape.gradient(value, z)).all()


def test_scores_are_float32_and_have_names():
    z = tf.zeros((1, 3), tf.float16)
    assert class_score(z, class_targets([0], z)).dtype == tf.float32
    with pytest.raises(ValueError, match="Unknown score: got 'entropy'"):
        class_score(tf.zeros((1, 2)), tf.zeros((1, 2)), "entropy")


def test_targets_of_every_form():
    for y in ([2, 0], [[2], [0]], np.array([2.0, 0.0]), [[0, 0, 1], [1, 0, 0]]):
        targets = class_targets(y, tf.zeros((2, 3)))
        assert targets.dtype == tf.float32
        assert targets.numpy().tolist() == [[0, 0, 1], [1, 0, 0]]
    for y in ([1, 0], [[1], [0]]):
        assert class_targets(y, tf.zeros((2, 1))).numpy().tolist() == [[1.0], [0.0]]
    with pytest.raises(ValueError, match=r"got shape \(2, 5\)"):
        class_targets(np.zeros((2, 5)), tf.zeros((2, 3)))


def test_targets_whose_side_a_pipeline_lost():
    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, None))])
    def targets(y):
        known = class_targets(y, tf.zeros((1, 3)))
        assert known.shape[-1] == 3
        return known

    np.testing.assert_array_equal(targets(tf.eye(3)), np.eye(3))
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not compatible"):
        targets(tf.eye(2))


@pytest.mark.parametrize("score", ["log_prob", "margin", "logit"])
def test_a_label_that_is_no_class_has_no_score(score):
    z = tf.constant([[2.0, 1.0, 0.0]] * 3)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = class_score(z, class_targets([1, -1, 255], z), score)
    gradient = tape.gradient(value, z)
    np.testing.assert_array_equal(value[1:], 0.0)
    assert not np.any(gradient[1:])
    assert np.any(gradient[0])


def test_predicted_targets():
    z = tf.constant([[1.0, 3.0, -1.0]])
    assert predicted_targets(z).numpy().tolist() == [[0.0, 1.0, 0.0]]
    assert predicted_targets(z, "sigmoid").numpy().tolist() == [[1.0, 1.0, 0.0]]
    assert predicted_targets(z[:, 2:]).numpy().tolist() == [[0.0]]


def test_log_prob_keeps_the_direction_of_a_sure_decision():
    # p_y rounds to one: the gradient must still be that of the log odds.
    z = tf.constant([[30.0, 0.0, 1.0]])
    targets = class_targets([0], z)
    pulls = {}
    for score in ("log_prob", "margin"):
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = class_score(z, targets, score)
        pull = tape.gradient(value, z).numpy()[0]
        pulls[score] = pull / np.abs(pull).sum()
    np.testing.assert_allclose(pulls["log_prob"], pulls["margin"], rtol=1e-5)
