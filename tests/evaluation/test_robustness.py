"""Linearized robustness, rates, and what a hardened model tells an evaluation."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr.evaluation import Rate, gradient_masking, linearized_robustness
from keras_jsigr.evaluation.gradient_masking_rules import RULES
from keras_jsigr.evaluation.robustness import Linearized, linearized_record
from keras_jsigr.evaluation.validation import check_threat_model, known_range

X = np.array([[150, 100], [101, 100], [90, 90], [108, 100]], "float32")
Y = np.array([1, 1, 0, 0])
TO_255 = (0.0, 255.0)


def net():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.set_weights([np.array([[-0.3, 0.3], [-0.4, 0.4]]), np.array([70.0, -70.0])])
    return model


@pytest.fixture(name="robust")
def fixture_robust():
    return kj.harden(net(), epsilon=2.0, input_range=(0, 255), verbose=0)


def test_range_and_radius_of_hardened_models(robust):
    assert known_range(None, net(), robust) == TO_255
    assert known_range((-1, 300), robust) == (-1.0, 300.0)
    assert known_range(None, net(), len) == (0.0, 1.0)
    other = kj.harden(net(), verbose=0)
    with pytest.raises(ValueError, match="expected one range"):
        known_range(None, robust, other)
    assert known_range(TO_255, robust, other) == TO_255
    # Attacks have one range: that of each column is refused.
    columns = kj.harden(net(), 0.1, input_range=([0, 0], [1, 9]), verbose=0)
    for given, models in (
        (None, [columns]),
        (([0, 0], [1, 9]), []),
        ({"x": (0, 1)}, []),
        ("standardized", []),
    ):
        with pytest.raises(ValueError, match="input_range"):
            known_range(given, *models)
    assert known_range((0, 9), columns) == (0.0, 9.0)
    _, threat = check_threat_model(X, None, np.inf, None, net(), robust)
    assert tuple(threat.values()) == (2.0, "linf", TO_255)
    # The radius of the maximum norm is none of another norm.
    for norm, models in (("l2", [robust]), ("linf", [net()])):
        with pytest.raises(ValueError, match="`epsilon` is None"):
            check_threat_model(X, None, norm, TO_255, *models)


def test_an_evaluation_takes_them(robust):
    common = {"diagnostics": False, "attacks": ["pgd"], "examples": 0}
    report = kj.evaluate_robustness(robust, X, Y, **common)
    assert report.threat_model == {
        "norm": "linf",
        "epsilon": 2.0,
        "input_range": [0.0, 255.0],
    }
    given = kj.evaluate_robustness(robust, X, Y, 2.0, norm=np.inf, input_range=TO_255, **common)
    assert report.robust == given.robust
    with pytest.raises(ValueError, match="range"):
        kj.evaluate_robustness(kj.unwrap(robust), X, Y, 2.0, **common)


def test_diagnostics_maps_and_transfer_take_them(robust, monkeypatch):
    rules = {name: RULES[name] for name in ("softmax_outputs", "zero_gradients")}
    monkeypatch.setattr(gradient_masking, "RULES", rules)
    assert [f.rule for f in kj.evaluation.diagnostics(robust, X, Y)] == list(rules)
    models = {"plain": net(), "robust": robust}
    report = kj.evaluate_saliency(models, X, Y, parts=["sparsity"])
    assert [each.title for each in report.reports] == list(models)
    records = kj.evaluation.transfer_matrix(models, X, Y)
    assert {r.epsilon for r in records} == {2.0}
    assert len(records) == 4
    with pytest.raises(ValueError, match="range"):
        kj.evaluation.transfer_matrix({"plain": net()}, X, Y, epsilons=[2.0])


RNG = np.random.default_rng(3)
ORDERS = {"linf": 1, "l2": 2, "l1": np.inf}
W = RNG.normal(size=(12, 5)).astype("float32")
B = RNG.normal(size=5).astype("float32")
X_LINEARIZED = RNG.uniform(0.3, 0.7, (20, 12)).astype("float32")


def linear(x):
    return tf.reshape(x, (-1, 12)) @ W + B


def by_hand(z, jacobian, order):
    """The definition, one example and class after the other, in float64."""
    result = []
    for scores, rows in zip(z.astype(float), jacobian.astype(float), strict=True):
        i = scores.argmax()
        result.append(
            min(
                (scores[i] - scores[j]) / np.linalg.norm((rows[i] - rows[j]).ravel(), order)
                for j in range(len(scores))
                if j != i
            )
        )
    return np.array(result)


def test_linear_model():
    for norm, shape in [("linf", (12,)), ("l2", (4, 3)), ("l1", (2, 2, 3))]:
        found = linearized_robustness(
            linear, X_LINEARIZED.reshape(-1, *shape), norm=norm, batch_size=7
        )
        jacobian = np.broadcast_to(W.T, (20, 5, 12))
        np.testing.assert_allclose(
            found.robustness,
            by_hand(X_LINEARIZED @ W + B, jacobian, ORDERS[norm]),
            rtol=1e-4,
        )
        ordered = np.sort(X_LINEARIZED @ W + B)
        np.testing.assert_allclose(found.margin, ordered[:, -1] - ordered[:, -2], rtol=1e-4)


def test_it_is_the_distance_to_the_boundary_of_a_linear_model():
    """The best step towards each class crosses the boundary there and not before."""
    rho = linearized_robustness(linear, X_LINEARIZED, norm="linf").robustness
    for x, radius in zip(X_LINEARIZED, rho, strict=True):
        own = (x @ W + B).argmax()
        best = [x * 0 + np.sign(W[:, j] - W[:, own]) for j in range(5)]
        for factor in (0.98, 1.02):
            reached = [(x + factor * radius * d) @ W + B for d in best]
            assert any(z.argmax() != own for z in reached) == (factor > 1)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "norm"), [("cnn", "linf"), ("lstm", "l2")])
def test_deep_models(kind, norm):
    layers = keras.layers
    shape = {"cnn": (6, 6, 2), "lstm": (5, 3)}[kind]
    body = {
        "cnn": [
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(4, activation="softmax"),
        ],
        "lstm": [layers.LSTM(5), layers.Dense(4)],
    }[kind]
    model = keras.Sequential([keras.Input(shape), *body])
    x = RNG.uniform(size=(9, *shape)).astype("float32")
    z, jacobian = _jacobian(model, x, kind == "cnn")
    found = linearized_robustness(model, x, norm=norm)
    expected = by_hand(z, jacobian, ORDERS[norm])
    np.testing.assert_allclose(found.robustness, expected, rtol=2e-3)


def _jacobian(model, x, head):
    below = keras.Sequential(model.layers[:-1]) if head else model

    def forward(x):
        dense = model.layers[-1]
        return below(x) @ dense.kernel + dense.bias if head else model(x)

    with tf.GradientTape(persistent=True) as tape:
        x = tf.constant(x)
        tape.watch(x)
        z = forward(x)
        columns = [z[:, c] for c in range(z.shape[-1])]
    rows = [tape.gradient(column, x).numpy() for column in columns]
    return z.numpy(), np.stack(rows, axis=1)


def test_scale_and_shift_of_the_logits_do_not_matter():
    for scale in [1e-6, 1e4]:

        def scaled(x, scale=scale):
            return scale * linear(x)

        for norm in ORDERS:
            plain = linearized_robustness(linear, X_LINEARIZED, norm=norm)
            other = linearized_robustness(scaled, X_LINEARIZED, norm=norm)
            np.testing.assert_allclose(other.robustness, plain.robustness, rtol=1e-4)
            np.testing.assert_allclose(other.gradient, scale * plain.gradient, rtol=1e-4)


def test_fewer_rivals_give_an_upper_bound():
    every = linearized_robustness(linear, X_LINEARIZED).robustness
    several = [
        linearized_robustness(linear, X_LINEARIZED, rivals=n).robustness for n in (1, 2, 4, 9)
    ]
    for weaker, stronger in itertools.pairwise(several):
        assert (weaker >= stronger - 1e-7).all()
    assert (several[0] > every + 1e-6).any()
    np.testing.assert_array_equal(several[2], every)
    np.testing.assert_array_equal(several[3], every)


def test_zero_gradient():
    def flat(x):
        return 0.0 * x[:, :2] + tf.constant([[1.0, 0.0]])

    def tie(x):
        return 0.0 * x[:, :2]

    assert np.isinf(linearized_robustness(flat, X_LINEARIZED).robustness).all()
    assert (linearized_robustness(tie, X_LINEARIZED).robustness == 0).all()
    with pytest.raises(ValueError, match="do not depend on its input"):
        linearized_robustness(lambda x: tf.ones((tf.shape(x)[0], 2)), X_LINEARIZED)


def test_a_gradient_that_is_no_number_says_nothing():
    def rooted(x):
        return tf.concat([1.0 + x[:, :1] + tf.sqrt(x[:, 1:2]), x[:, 2:4]], -1)

    x = X_LINEARIZED.copy()
    x[:5, 1] = 0.0
    found = linearized_robustness(rooted, x)
    np.testing.assert_array_equal(np.isnan(found.robustness), np.arange(20) < 5)
    alone = linearized_robustness(rooted, x[5:])
    np.testing.assert_array_equal(found.robustness[5:], alone.robustness)
    record = linearized_record(found, "linf")
    assert record == linearized_record(alone, "linf")
    with pytest.raises(ValueError, match="at all 5 examples"):
        linearized_record(linearized_robustness(rooted, x[:5]), "linf")


def test_binary_head():
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(1, "sigmoid")])
    kernel = model.layers[0].kernel.numpy()[:, 0]
    found = linearized_robustness(model, X_LINEARIZED, norm="l2").robustness
    z = np.abs(X_LINEARIZED @ kernel)
    np.testing.assert_allclose(found, z / np.linalg.norm(kernel), rtol=1e-3)


def test_batches_and_half_precision():
    whole = linearized_robustness(linear, X_LINEARIZED).robustness
    parts = linearized_robustness(linear, X_LINEARIZED, batch_size=3).robustness
    np.testing.assert_allclose(parts, whole, rtol=1e-6)

    def half(x):
        return linear(tf.cast(x, tf.float32))

    found = linearized_robustness(half, X_LINEARIZED.astype("float16")).robustness
    np.testing.assert_allclose(found, whole, rtol=0.05, atol=2e-3)


def test_record():
    values = np.arange(1, 101, dtype="float32")
    record = linearized_record(Linearized(values, 2 * values, 3 * values), "l2")
    assert dict(record.quantiles)[0.5] == 50
    assert dict(record.quantiles)[0.05] == 5
    assert (record.norm, record.margin, record.gradient) == ("l2", 100, 150)
    infinite = np.full(4, np.inf, "float32")
    record = linearized_record(Linearized(infinite, values[:4], 0 * values[:4]), "l2")
    assert [value for _, value in record.quantiles] == [np.inf] * 7


def test_bad_settings():
    with pytest.raises(ValueError, match="at least one example"):
        linearized_robustness(linear, X_LINEARIZED[:0])
    for settings in ({"norm": "l3"}, {"rivals": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            linearized_robustness(linear, X_LINEARIZED, **settings)


Z = 1.959963984540054
CASES = [(0, 1), (1, 1), (0, 10), (10, 10), (1, 10), (80, 100), (6140, 9999)]


def test_ends_of_the_interval_solve_the_score_equation():
    """Each end is where the observed share is 1.96 standard errors away."""
    for correct, total in CASES:
        rate = Rate(correct, total)
        for p in (rate.low, rate.high):
            if 1e-9 < p < 1 - 1e-9:
                z = abs(rate.accuracy - p) / math.sqrt(p * (1 - p) / total)
                assert z == pytest.approx(Z, rel=1e-9)
        assert 0 <= rate.low <= rate.accuracy <= rate.high <= 1
    # Worked out beforehand, to ten digits.
    assert Rate(80, 100).low == pytest.approx(0.7111708344, abs=1e-9)
    assert Rate(0, 10).high == pytest.approx(0.2775327999, abs=1e-9)
    for correct, total in ((-1, 5), (6, 5), (0, 0)):
        with pytest.raises(ValueError, match="expected 0 <= correct"):
            Rate(correct, total)


def test_coverage_of_the_interval():
    """Binomial probabilities of the counts whose interval holds p: close to 95 %."""
    n, counts = 200, np.arange(201)
    for p in (0.02, 0.5, 0.9):
        log = [
            math.log(math.comb(n, k)) + k * math.log(p) + (n - k) * math.log(1 - p)
            for k in range(n + 1)
        ]
        inside = [Rate(int(k), n).low <= p <= Rate(int(k), n).high for k in counts]
        assert 0.93 < np.exp(log)[inside].sum() < 0.98
