"""The call: honest networks pass, masked ones do not, crashes cost one finding."""

import functools
import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr import JSIGRConfig, harden
from keras_jsigr.attacks import APGD, FGSM, PGD
from keras_jsigr.core.files import from_json, to_json
from keras_jsigr.core.inputs import input_specs, probe_batch
from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.variables import unchanged
from keras_jsigr.evaluation import gradient_masking as diagnose
from keras_jsigr.evaluation import gradient_masking_rules as rules
from keras_jsigr.evaluation.gradient_masking import diagnostics
from keras_jsigr.evaluation.gradient_masking_context import (
    SIGNIFICANCE,
    NotApplicableError,
    clearly_more,
    clearly_moved,
    tail_probability,
)
from keras_jsigr.evaluation.gradient_masking_rules import RULES, Rule, RuleResult
from keras_jsigr.evaluation.records import Finding

X = np.random.default_rng(0).uniform(0.1, 0.9, (60, 3)).astype("float32")
Y = X.argmax(-1)


def linear(x):
    return 5.0 * x


def suspects(findings):
    return [f.rule for f in findings if f.status == "suspect"]


@pytest.fixture
def cheap(monkeypatch):
    """Only two quick rules."""

    def harmless(context):
        return RuleResult(False, "Fine.", {"sum": context.x.sum()}, "Never shown.")

    def broken(context):
        raise RuntimeError("no luck\nat all")

    checks = {"harmless": harmless, "broken": broken}
    rules = {name: Rule(name, name.title(), check) for name, check in checks.items()}
    monkeypatch.setattr(diagnose, "RULES", rules)


@pytest.fixture(scope="module")
def honest_findings(honest, test_set):
    return {
        name: diagnostics(net, *test_set, epsilon=0.1, verbose=0) for name, net in honest.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "adversarial", "hardened"])
def test_honest_networks_pass(honest_findings, name):
    findings = honest_findings[name]
    assert [f.rule for f in findings] == list(RULES)
    assert [(f.rule, f.says) for f in findings if f.status != "ok"] == []
    assert all(f.advice == "" for f in findings)
    for f in findings:
        assert f.figures["examples"] == f.figures["examples_given"] == 120
        assert all(np.isfinite(list(f.figures.values())))
    document = json.loads(json.dumps(to_json(findings)))
    assert from_json(list[Finding], document) == findings


@pytest.mark.slow
def test_networks_are_what_they_should_be(honest_findings):
    """The test above means nothing on networks that learned nothing."""
    robust = {}
    for name, findings in honest_findings.items():
        figures = {f.rule: f.figures for f in findings}["noise"]
        assert figures["clean_accuracy"] > 0.6
        robust[name] = figures["pgd_accuracy"]
    assert robust["plain"] + 0.15 < min(robust["adversarial"], robust["hardened"])


@pytest.fixture
def own(monkeypatch):
    """The rules that compute with norms and dtypes themselves; no attack's own."""
    names = ("zero_gradients", "randomness", "logit_scale", "local_linearity", "noise")
    few = {name: RULES[name] for name in names}
    monkeypatch.setattr(diagnose, "RULES", few)


@pytest.mark.slow
def test_one_sigmoid_unit_in_half_precision_under_l2(own):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")]
    net = keras.Sequential(layers)
    x, y = X.astype("float16"), np.asarray(net(X) > 0.5, int)
    settings = {"epsilon": 0.1, "norm": "l2", "batch_size": 50}
    findings = diagnostics(net, x, y, verbose=0, **settings)
    assert [f.status for f in findings] == ["ok"] * 5


@pytest.mark.slow
def test_l1(own):
    findings = diagnostics(linear, X, Y, epsilon=0.2, norm="l1", verbose=0)
    assert [f.status for f in findings] == ["ok"] * 5


def test_always_wrong_model_is_skipped_not_accused():
    findings = diagnostics(linear, X, (Y + 1) % 3, epsilon=0.1, verbose=0)
    by_rule = {f.rule: f for f in findings}
    assert suspects(findings) == []
    assert by_rule["noise"].status == "skipped"
    assert "No example is classified rightly" in by_rule["noise"].says
    assert by_rule["zero_gradients"].status == "ok"


def test_a_crash_costs_one_finding(cheap, capsys):
    fine, broken = diagnostics(linear, X, Y, epsilon=0.1, verbose=1)
    assert (fine.status, fine.says, fine.advice) == ("ok", "Fine.", "")
    assert (broken.status, broken.title) == ("skipped", "Broken")
    assert "RuntimeError: no luck" in broken.says
    assert "Broken: skipped" in capsys.readouterr().out


def test_subsample_is_drawn_by_the_seed(cheap, monkeypatch):
    monkeypatch.setattr(diagnose, "IMAGES", 20)

    def total(**settings):
        first, _ = diagnostics(linear, X, Y, epsilon=0.1, verbose=0, **settings)
        assert first.figures["examples"] == 20.0
        assert first.figures["examples_given"] == 60.0
        return first.figures["sum"]

    assert total() == total(seed=0) != total(seed=1)


def test_results_and_labels_are_subsampled_alike(monkeypatch):
    monkeypatch.setattr(diagnose, "IMAGES", 20)
    seen = {}

    # A rule of the user's own is one function.
    monkeypatch.setattr(rules, "RULES", rules.RULES.copy())

    @rules.rule("look", "Look")
    def look(context):
        seen["x"], seen["y"] = context.x, context.y
        seen["points"], seen["names"] = context.results["mine"], context.surrogates
        return RuleResult(False, "", {})

    monkeypatch.setattr(diagnose, "RULES", {"look": rules.RULES["look"]})
    options = {"results": {"mine": X + 0.0}, "surrogates": [lambda x: 2.0 * x]}
    diagnostics(linear, tf.constant(X), tf.one_hot(Y, 3), epsilon=0.1, verbose=0, **options)
    np.testing.assert_array_equal(seen["x"].argmax(-1), seen["y"])
    np.testing.assert_array_equal(seen["points"], seen["x"])
    assert list(seen["names"]) == ["surrogate 1"]


def test_same_seed_same_figures():
    def masked(x):
        return tf.round(6.0 * x)

    few = {name: RULES[name] for name in ("softmax_outputs", "noise")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnose, "RULES", few)
        runs = [diagnostics(masked, X, Y, epsilon=0.1, verbose=0, seed=seed) for seed in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]


def test_refuses_before_any_work(cheap):
    for change, error, words in (
        ({"epsilon": 0.0}, ValueError, "`epsilon` is out of range"),
        ({"epsilon": 1.0}, ValueError, "`epsilon` is too large"),
        ({"epsilon": None}, ValueError, "`epsilon` is None"),
        ({"norm": "l0"}, ValueError, "Unknown `norm`"),
        ({"input_range": (0.0, 0.5)}, ValueError, "leaves the input range"),
        ({"batch_size": 0}, ValueError, "`batch_size`"),
        ({"seed": -1}, ValueError, "`seed`"),
        ({"verbose": 2}, ValueError, "Unknown `verbose`"),
        ({"y": Y[:5]}, ValueError, "does not match"),
        ({"y": Y + 7}, ValueError, "out of range"),
        ({"model": "net.keras"}, TypeError, "expected a Keras model"),
        ({"surrogates": linear}, TypeError, "`surrogates`"),
        ({"surrogates": [linear]}, ValueError, "itself"),
        ({"results": [X]}, TypeError, "`results`"),
        ({"results": {"mine": X[:5]}}, ValueError, "one point per example"),
        ({"results": {"mine": X + 0.101}}, ValueError, "got 60 points outside"),
    ):
        call = {"model": linear, "x": X, "y": Y, "epsilon": 0.1, "verbose": 0} | change
        with pytest.raises(error, match=words):
            diagnostics(call.pop("model"), call.pop("x"), call.pop("y"), **call)


# One feature at 0.5, radius 0.1: no slope up to a distance of 0.08, wrong beyond, so
# only a random start outside finds an error: one in five.
PLATEAU = ([0.0, 0.08, 0.0801, 0.5], [-1.0, -1.0, 1.0, 1.0])


def check(rule, context):
    return RULES[rule].check(context)


def logits_of_margins(x):
    """100 times the first feature is the margin of class 0."""
    half = 50.0 * x[:, :1]
    return tf.concat([half, -half], axis=-1)


def test_zero_gradients_counts_the_saturated(context_of):
    # |dL/dx| = 50 (1 - p_0) + 50 p_1; above a margin of 17 p_0 is one in float32.
    x = (np.arange(100, dtype="float32") / 100)[:, None] + 0.001
    result = check("zero_gradients", context_of(logits_of_margins, x, x[:, 0] * 0))
    margins = 100 * x[:, 0].astype("float64")
    zero = 50 * np.exp(-margins) < 1e-12
    wanted = {"share": zero.mean(), "share_without_any": 0.0, "share_not_finite": 0.0}
    assert result.figures == wanted
    assert result.suspect


def test_zero_gradients_without_any(context_of, middle):
    result = check(
        "zero_gradients",
        context_of(lambda x: tf.round(x * [[3.0, 1.0]]), *middle),
    )
    assert result.suspect
    wanted = {"share": 1.0, "share_without_any": 1.0, "share_not_finite": 0.0}
    assert result.figures == wanted
    assert "BPDA" in result.advice


def no_number_at_zero(x):
    """Right by far, through a square root that has no derivative at zero."""
    root = tf.sqrt(x[:, 1:])
    return tf.concat([3.0 + x[:, :1] + root, tf.zeros_like(root)], axis=-1)


@pytest.fixture
def rootless(context_of):
    x = np.full((200, 2), 0.5, "float32")
    x[:80, 1] = 0.0
    return context_of(no_number_at_zero, x, np.zeros(200, int))


def test_gradients_that_are_no_number(rootless):
    result = check("zero_gradients", rootless)
    assert result.suspect
    assert result.figures["share_not_finite"] == 0.4
    assert result.figures["share"] == result.figures["share_without_any"] == 0.0
    assert "NaN or infinite at 40.0 % of 200" in result.says


def test_points_that_are_no_number_fool_nobody(rootless):
    # The margin is 3 at least and moves by less than one within the radius.
    result = check("logit_scale", rootless)
    assert not result.suspect
    assert "leaves 100.0 % right" in result.says


@pytest.mark.slow
def test_linearity_is_that_of_gradients_that_are_numbers(rootless):
    with pytest.warns(RuntimeWarning, match="NaN or infinite at 80 of 200"):
        figures = check("local_linearity", rootless).figures
    assert np.isfinite(list(figures.values())).all()
    assert figures["alignment"] > 0.9


def test_softmax_outputs(context_of):
    x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
    y = np.zeros(50, int)
    probabilities = check("softmax_outputs", context_of(tf.nn.softmax, x, y))
    assert probabilities.suspect
    assert probabilities.figures == {"share": 1.0, "saturated": 0.0}
    sharp = check("softmax_outputs", context_of(lambda x: tf.nn.softmax(1e6 * x), x, y))
    assert sharp.figures == {"share": 1.0, "saturated": 1.0}
    assert not check("softmax_outputs", context_of(lambda x: x, x, y)).suspect
    unit = check("softmax_outputs", context_of(lambda x: tf.sigmoid(x[:, :1]), x, y))
    assert unit.suspect
    # A number between zero and one that goes beyond elsewhere is a logit.
    linear = check("softmax_outputs", context_of(lambda x: x[:, :1], abs(x) / 9, y))
    assert not linear.suspect


def test_randomness(context_of, middle):
    def noisy(x):
        return tf.concat([x, 1.0 - x], -1) + tf.random.normal(tf.shape(x))

    def python_noise(x):
        return tf.concat([x, 1.0 - x], -1) + np.random.normal()

    for model in (noisy, python_noise):
        result = check("randomness", context_of(model, *middle))
        assert result.suspect
        assert result.figures["largest_difference"] > 0.01
    result = check("randomness", context_of(lambda x: 1e6 * x, *middle))
    assert not result.suspect
    assert set(result.figures.values()) == {0.0}


def test_answers_that_depend_on_the_batch(context_of, monkeypatch):
    """Batch norm in training mode, whatever way the callable holds the model."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((3,)), keras.layers.BatchNormalization()]
    net = keras.Sequential([*layers, keras.layers.Dense(3)])
    x = np.random.default_rng(0).normal(0.5, 0.1, (90, 3)).astype("float32")

    class Wrapped:
        def __init__(self):
            self.nets = [net]

        def ask(self, x):
            return self.nets[0](x, training=True)

    def outer(x):
        return inner(x)

    inner = functools.partial(net, training=True)
    for model in (lambda x: net(x, training=True), inner, outer, Wrapped().ask):
        result = check("randomness", context_of(model, x, np.zeros(90, int), classes=3))
        assert result.suspect
        assert result.figures["largest_difference"] == 0.0
        assert result.figures["batch_difference"] > 0.02
        assert "moving_mean" in result.says
    assert not check("randomness", context_of(net, x, np.zeros(90, int))).suspect
    before = [v.numpy() for v in net.variables]
    monkeypatch.setattr(diagnose, "RULES", {"randomness": RULES["randomness"]})
    diagnostics(lambda x: net(x, training=True), x, x.argmax(-1), epsilon=0.1)
    for variable, value in zip(net.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    with unchanged(lambda x: net(x), Wrapped().ask) as changed:
        net(x, training=True)
    assert any("moving_mean" in name for name in changed)
    for variable, value in zip(net.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


@pytest.mark.parametrize("kind", ["one hot", "rounded", "steep"])
def test_changes_that_gradients_do_not_see(context_of, kind, monkeypatch):
    """Decisions beside a small smooth part, which is all that the gradient sees."""
    monkeypatch.setattr(rules, "UNSEEN_QUERIES", 200)
    monkeypatch.setattr(rules, "UNSEEN_EXAMPLES", 4)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(2, 6, 4)).astype("float32")
    hidden, shown = weights

    def honest(x):
        return tf.nn.softplus(x @ hidden) @ np.eye(4, dtype="float32")

    def masked(x):
        z, small = honest(x), 1e-2 * tf.tanh(x @ shown)
        if kind == "one hot":
            return 5.0 * tf.one_hot(tf.argmax(z, -1), 4) + small
        if kind == "rounded":
            return tf.round(z) + small
        return 5.0 * tf.nn.softmax(1e4 * z) + small

    x = rng.uniform(size=(200, 6)).astype("float32")
    for model, suspect in ((honest, False), (masked, True)):
        context = context_of(model, x, np.argmax(model(x), -1), classes=4)
        result = check("unseen_changes", context)
        assert result.suspect == suspect, result.figures
        assert (result.figures["median_seen"] < 0.2) == suspect
        assert ("HopSkipJump" in result.says) == suspect
    same = context_of(honest, x[:1], np.zeros(1, int), classes=4)
    with pytest.raises(NotApplicableError, match="one decision"):
        check("unseen_changes", same)


def test_gradients_that_belong_to_another_function(context_of):
    """A gradient of a sign of its own is found; a smooth stand-in (BPDA) is none."""

    @tf.custom_gradient
    def negated(x):
        return tf.identity(x), lambda gradient: -gradient

    @tf.custom_gradient
    def straight_through(x):
        return tf.round(16.0 * x) / 16.0, lambda gradient: gradient

    for change, suspect in ((negated, True), (straight_through, False)):
        context = context_of(lambda x, f=change: linear(f(x)), X, Y, norm="l1")
        assert check("unseen_changes", context).suspect == suspect


def test_python_code_has_no_gradient():
    """What needs a gradient is skipped; whatever else is asked once."""
    for function in ["numpy_function", "py_function"]:

        def model(x, function=function):
            f = lambda a: np.asarray(a) * 5.0  # noqa: E731
            out = getattr(tf, function)(f, [x], tf.float32)
            return tf.ensure_shape(out, (None, 3))

        found = {f.rule: f for f in diagnostics(model, X, Y, epsilon=0.1, verbose=0)}
        assert suspects(found.values()) == ["zero_gradients"]
        assert "cannot differentiate" in found["zero_gradients"].says
        assert found["randomness"].status == "ok"
        assert sum(f.status == "skipped" for f in found.values()) == len(RULES) - 2
        assert not any(f.crashed for f in found.values())


def test_randomness_is_seen_beside_a_huge_logit(context_of, middle):
    """A class that is switched off, as vocabularies and masks have it."""
    constant = -3e38

    def model(x, noise):
        z = tf.concat([x, 0.9 * x], -1) + noise * tf.random.normal((tf.shape(x)[0], 2))
        return tf.concat([z, tf.fill(tf.shape(x), constant)], -1)

    noisy = check("randomness", context_of(lambda x: model(x, 0.1), *middle, classes=3))
    assert noisy.suspect
    assert noisy.figures["largest_difference"] > 0.1
    still = check("randomness", context_of(lambda x: model(x, 0.0), *middle, classes=3))
    assert not still.suspect


def test_randomness_of_decisions_alone_and_of_rounding(context_of, middle):
    """Beside an offset the noise is small; what it changes is not."""

    def model(x, offset, noise):
        z = tf.concat([x, x + 0.015], -1) + noise * tf.random.normal((tf.shape(x)[0], 2))
        return offset + z

    result = check("randomness", context_of(lambda x: model(x, 1e3, 0.01), *middle))
    assert result.figures["largest_difference"] <= 1e-4
    assert result.figures["decisions_changed"] > 0.1
    assert result.suspect
    # A tie that the last digit breaks.
    tie = check("randomness", context_of(lambda x: model(x, 1e5, 0.02), *middle))
    assert tie.figures["decisions_changed"] > 0.1
    assert not tie.suspect


@pytest.mark.slow
def test_single_step_beats_iterative(context_of, landscape):
    # From 0.5001 the full step lands beyond 0.095, where the model errs. Many steps
    # climb to the hill at 0.04 from everywhere but the outer tenth of the ball.
    model = landscape([0.0, 0.04, 0.09, 0.095, 0.5], [-1.0, -0.5, -0.9, 1.0, 1.0])
    x = np.full((200, 1), 0.5001, "float32")
    context = context_of(model, x, np.zeros(200, int))
    result = check("single_step_beats_iterative", context)
    assert result.suspect
    assert result.figures["fgsm_accuracy"] == 0.0
    # Starts beyond the valley at 0.09: one tenth, on either side.
    share = result.figures["share"]
    assert abs(share - 0.9) < 4 * (0.9 * 0.1 / 200) ** 0.5
    assert share == result.figures["pgd_accuracy"]
    error = (share * (1 - share) / 200) ** 0.5
    assert result.figures["standard_error"] == pytest.approx(error)


@pytest.mark.slow
def test_black_box_beats_white_box(context_of, landscape, middle):
    model = landscape(*PLATEAU)
    result = check("black_box_beats_white_box", context_of(model, *middle))
    assert result.suspect
    # Square starts at the edge: it finds all that PGD and APGD started inside of.
    assert result.figures["share_by_square"] == result.figures["share_before_effort"]
    assert result.figures["share_before_effort"] == result.figures["white_box_accuracy"]
    # PGD, then six APGD restarts, each with four chances in five to miss.
    expected = 0.8**7
    error = (expected * (1 - expected) / 200) ** 0.5
    assert abs(result.figures["share"] - expected) < 4 * error


def test_points_given_count_as_white_box(context_of, landscape, middle):
    x, y = middle
    found = np.where(np.arange(200)[:, None] < 150, x + 0.1, x).astype("float32")
    context = context_of(landscape(*PLATEAU), x, y, results={"mine": found})
    assert not context.under_white_box[:150].any()
    np.testing.assert_array_equal(context.under_white_box[150:], context.under_pgd[150:])


@pytest.mark.slow
def test_black_box_by_transfer(context_of, monkeypatch):
    # The gradient of the model shows the wrong way, that of the surrogate does not.
    def flipped(x):
        z = tf.stop_gradient(2.0 * x) - x
        return tf.concat([z - 0.95, tf.zeros_like(z)], -1)

    def surrogate(x):
        return tf.concat([x - 0.45, tf.zeros_like(x)], -1)

    x, y = np.full((100, 1), 0.999, "float32"), np.zeros(100, int)
    context = context_of(flipped, x, y, surrogates={"twin": surrogate})
    # Every restart of APGD would find an error at its random start.
    monkeypatch.setattr(APGD, "__call__", lambda self, model, x, y, **_: x)
    result = check("black_box_beats_white_box", context)
    assert result.suspect
    assert result.figures["share_by_transfer"] == result.figures["share"] > 0.2


@pytest.mark.slow
def test_more_steps(context_of, landscape, middle):
    result = check("more_steps", context_of(landscape(*PLATEAU), *middle))
    assert result.suspect
    # The same random start again, then four others.
    assert result.figures["accuracy_more_steps"] == result.figures["accuracy"]
    expected = 0.8**5
    error = (expected * (1 - expected) / 200) ** 0.5
    assert result.figures["share"] == pytest.approx(
        result.figures["accuracy"] - result.figures["accuracy_more_starts"]
    )
    assert abs(result.figures["accuracy_more_starts"] - expected) < 4 * error


def test_epsilon_curve_that_rises(context_of, landscape, middle):
    # Errors only in a band around a distance of 0.1; farther out the slope leads away.
    model = landscape([0.0, 0.08, 0.1, 0.12, 0.5, 1.0], [-2.0, -0.5, 1.0, -1.9, -1.0, -1.0])
    result = check("epsilon_curve", context_of(model, *middle))
    assert result.suspect
    curve = [result.figures[f"accuracy_at_{r}"] for r in ("0.05", "0.1", "0.2", "1")]
    assert curve[0] == 1.0
    assert curve[1] < 0.05 < curve[2] < curve[3]
    assert result.figures["largest_rise"] > 0.2


def test_epsilon_curve_that_ends_high(context_of):
    x = np.linspace(0.0, 1.0, 100, dtype="float32")[:, None]
    y = (x[:, 0] > 0.5).astype(int)

    def rounded(x):
        return tf.concat([0.5 - tf.round(x), tf.round(x) - 0.5], -1)

    result = check("epsilon_curve", context_of(rounded, x, y))
    assert result.figures["chance"] == 0.5
    # A random start anywhere is right at one half: above that only by chance.
    assert 0.2 < result.figures["accuracy_at_1"] < 0.8

    def linear(x):
        return tf.concat([0.5 - x, x - 0.5], -1)

    result = check("epsilon_curve", context_of(linear, x, y))
    assert not result.suspect
    assert result.figures["accuracy_at_1"] == 0.0
    assert result.figures["accuracy_at_0.1"] == ((x < 0.4) | (x > 0.6)).mean()


def test_logit_scale(context_of):
    for factor in [1.0, 1e4]:
        x = np.full((100, 2), [0.55, 0.5], "float32")
        context = context_of(lambda x, factor=factor: factor * x, x, np.zeros(100, int))
        result = check("logit_scale", context)
        assert result.suspect == (factor == 1e4)
        assert result.figures["accuracy_margin"] == result.figures["accuracy_0.001"] == 0.0
        assert result.figures["accuracy"] == float(factor == 1e4)


@pytest.mark.slow
def test_local_linearity_of_a_line_and_a_parabola(context_of):
    x, y = np.full((50, 1), 0.5, "float32"), np.zeros(50, int)

    def line(x):
        return tf.concat([tf.zeros_like(x), 3.0 * (x - 1.0)], -1)

    figures = check("local_linearity", context_of(line, x, y)).figures
    assert figures["alignment"] == pytest.approx(1.0)
    assert figures["gamma"] == pytest.approx(0.0, abs=1e-5)

    def parabola(x):
        return tf.concat([tf.zeros_like(x), (x + 0.5) ** 2 - 9.0], -1)

    # L(x + d) - L(x) - d L'(x) = d^2, largest at the end of the step, which gains 2 d.
    figures = check("local_linearity", context_of(parabola, x, y)).figures
    assert figures["gamma"] == pytest.approx(0.1**2, rel=1e-3)
    assert figures["relative_gamma"] == pytest.approx(0.1 / 2, rel=1e-3)


@pytest.mark.slow
def test_local_linearity_of_shattered_gradients(context_of):
    x = np.random.default_rng(0).uniform(0.2, 0.8, (100, 50)).astype("float32")

    def shattered(x):
        loss = tf.reduce_sum(tf.sin(1000.0 * x), -1, keepdims=True) - 100.0
        return tf.concat([tf.zeros_like(loss), loss], -1)

    result = check("local_linearity", context_of(shattered, x, np.zeros(100, int)))
    assert result.suspect
    # Four draws of 100 examples of 50 independent signs-like products.
    assert abs(result.figures["alignment"]) < 4 / (4 * 100 * 50) ** 0.5


def test_noise_finds_what_gradients_do_not(context_of, landscape, middle):
    result = check("noise", context_of(landscape(*PLATEAU), *middle))
    assert result.suspect
    assert result.figures["worst_noise_accuracy"] == 0.0
    assert result.figures["share"] == result.figures["pgd_accuracy"]
    # One draw in five errs, 100 draws of 200 examples.
    assert abs(result.figures["noise_accuracy"] - 0.8) < 4 * (0.16 / 20_000) ** 0.5


def test_noise_of_a_line_in_many_dimensions(context_of):
    # Noise moves the mean of 400 features by 0.003, the gradient by 0.1.
    x, y = np.full((50, 400), 0.55, "float32"), np.zeros(50, int)

    def line(x):
        mean = tf.reduce_mean(x, -1, keepdims=True) - 0.5
        return tf.concat([mean, -mean], -1)

    result = check("noise", context_of(line, x, y))
    assert not result.suspect
    assert result.figures["noise_accuracy"] == 1.0
    assert result.figures["pgd_accuracy"] == 0.0


def test_noise_of_a_radius_too_large_for_the_data_accuses_nobody(context_of):
    """Where PGD leaves nothing, noise is none the better for doing half of it."""
    w = np.random.default_rng(0).normal(size=(784, 10)).astype("float32")
    y = np.arange(50) % 10
    x = (0.5 + 0.005 * w[:, y].T).astype("float32")

    def linear(x):
        return tf.linalg.matmul(x - 0.5, w)

    result = check("noise", context_of(linear, x, y, epsilon=0.3))
    assert result.figures["pgd_accuracy"] == 0.0
    assert result.figures["noise_accuracy"] < 0.5
    assert not result.suspect


def test_few_examples_accuse_nobody(context_of):
    x = np.random.default_rng(0).uniform(0.2, 0.8, (9, 400)).astype("float32")

    def shattered(x):
        loss = tf.reduce_sum(tf.sin(1000.0 * x), -1, keepdims=True)
        return tf.concat([tf.zeros_like(loss) + 1.0, loss], -1)

    y = tf.argmax(shattered(x), -1).numpy()
    result = check("local_linearity", context_of(shattered, x, y))
    assert abs(result.figures["alignment"]) < 0.1
    assert not result.suspect


stats = pytest.importorskip("scipy.stats")


def test_tail_probability_against_scipy():
    for total, share in itertools.product([1, 7, 100, 1000], [0.01, 0.1, 0.5, 0.9]):
        for count in {0, 1, total // 10, total // 2, total}:
            expected = stats.binom.sf(count - 1, total, share)
            found = tail_probability(count, total, share)
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-300)


def test_the_edge_is_rarely_accused_and_four_times_it_found():
    for total, share in itertools.product([20, 100, 500, 1000], [0.01, 0.02, 0.05]):
        accused = [clearly_more(count, total, share) for count in range(total + 1)]
        first = accused.index(True)
        assert all(accused[first:])
        assert stats.binom.sf(first - 1, total, share) < SIGNIFICANCE
        if total * share >= 10:
            assert stats.binom.sf(first - 1, total, 4 * share) > 0.95


def test_sign_test():
    assert clearly_moved(10, 0, 1000, 0.0)  # One in 1024.
    assert not clearly_moved(9, 0, 1000, 0.0)
    assert not clearly_moved(10, 0, 100, 0.1)  # No more than is tolerated.
    assert not clearly_moved(0, 50, 100, 0.0)
    assert not clearly_moved(0, 0, 100, 0.0)


# ---- defenses that are none


def temperature_scaled(model, factor=1000.0):
    """Multiply the logits: cross entropy is saturated (arXiv 1511.04508)."""
    logits_fn = _logits(model)
    return lambda x: factor * logits_fn(x)


def quantized_inputs(model, levels=4):
    """Round the inputs: there is no gradient to follow (arXiv 1711.00117)."""
    width, logits_fn = 1.0 / (levels - 1), _logits(model)
    return lambda x: logits_fn(width * tf.round(tf.convert_to_tensor(x) / width))


def randomized(model, stddev=0.1):
    """Add Gaussian noise to the inputs at every call (arXiv 1711.01991)."""
    logits_fn = _logits(model)

    def noisy(x):
        x = tf.convert_to_tensor(x)
        noise = tf.random.normal(tf.shape(x), stddev=stddev, dtype=x.dtype)
        return logits_fn(x + noise)

    return noisy


def train_single_step(model, x, y, *, epsilon, epochs=12):
    """Train on FGSM without a random start: catastrophic overfitting."""
    robust = harden(
        model,
        recipe=JSIGRConfig(jacobian_weight=0.0, selective_weight=0.0),
        adversary=FGSM(epsilon=epsilon, random_start=False),
        verbose=0,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile(keras.optimizers.Adam(2e-3), loss)
    order = np.random.default_rng(0)
    for _ in range(epochs):
        rows = order.permutation(len(x))
        robust.fit(x[rows], y[rows], batch_size=128, shuffle=False, verbose=0)
    return model


def _logits(model):
    return as_logits(model, probe_batch(model, input_specs(model)))


@pytest.fixture
def suspects_demonstrators(monkeypatch):
    """Run some of the rules and return those that fire."""

    def run(model, x, y, rules, **settings):
        with monkeypatch.context() as patch:
            patch.setattr(diagnose, "RULES", {name: RULES[name] for name in rules})
            findings = diagnostics(model, x, y, verbose=0, **settings)
        for finding in findings:
            assert finding.status != "skipped", finding.says
            assert (finding.status == "suspect") == (finding.advice != "")
        return [f.rule for f in findings if f.status == "suspect"]

    return run


def accuracy(model, x, y):
    return (np.argmax(model(x), -1) == y).mean()


@pytest.mark.slow
def test_temperature(honest, test_set, suspects_demonstrators):
    masked = temperature_scaled(honest["plain"])
    rules = ["zero_gradients", "softmax_outputs", "randomness", "logit_scale"]
    assert suspects_demonstrators(masked, *test_set, rules, epsilon=0.1) == [
        "zero_gradients",
        "logit_scale",
    ]
    # The attacks of the package are not taken in.
    x, y = test_set
    attack = PGD(epsilon=0.1, verbose=0)
    ours, plain = attack(masked, x, y), attack(honest["plain"], x, y)
    assert abs(accuracy(masked, ours, y) - accuracy(masked, plain, y)) < 0.03


@pytest.mark.slow
def test_quantized_inputs(honest, test_set, suspects_demonstrators):
    masked = quantized_inputs(honest["plain"])
    rules = ["zero_gradients", "black_box_beats_white_box", "epsilon_curve", "noise"]
    assert suspects_demonstrators(masked, *test_set, rules, epsilon=0.1) == rules


@pytest.mark.slow
def test_randomized(honest, test_set, suspects_demonstrators):
    masked = randomized(honest["plain"])
    rules = ["zero_gradients", "randomness", "single_step_beats_iterative"]
    assert suspects_demonstrators(masked, *test_set, rules, epsilon=0.1) == rules[1:]


@pytest.mark.slow
def test_catastrophic_overfitting(make_net, data, suspects_demonstrators):
    x, y = data.x_train[:4000], data.y_train[:4000]
    net = train_single_step(make_net(28), x, y, epsilon=0.3)
    x, y = data.x_test[:300], data.y_test[:300]
    assert accuracy(net, FGSM(epsilon=0.3)(net, x, y), y) > 0.25
    assert accuracy(net, PGD(epsilon=0.3, verbose=0)(net, x, y), y) < 0.03
    rules = ["zero_gradients", "single_step_beats_iterative", "local_linearity"]
    assert suspects_demonstrators(net, x, y, rules, epsilon=0.3) == ["local_linearity"]
