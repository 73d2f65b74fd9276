"""Every rule on a model whose answer is known in closed form."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import APGD
from keras_jsigr.evaluation.masking.rules import RULES

# One feature at 0.5, radius 0.1: no slope up to a distance of 0.08, wrong beyond, so
# only a random start outside finds an error: one in five.
PLATEAU = ([0.0, 0.08, 0.0801, 0.5], [-1.0, -1.0, 1.0, 1.0])


def judge(rule, subject):
    return RULES[rule].judge(subject)


def logits_of_margins(x):
    """100 times the first feature is the margin of class 0."""
    half = 50.0 * x[:, :1]
    return tf.concat([half, -half], axis=-1)


def test_zero_gradients_counts_the_saturated(subject_of):
    # |dL/dx| = 50 (1 - p_0) + 50 p_1; above a margin of 17 p_0 is one in float32.
    x = (np.arange(100, dtype="float32") / 100)[:, None] + 0.001
    verdict = judge("zero_gradients", subject_of(logits_of_margins, x, x[:, 0] * 0))
    margins = 100 * x[:, 0].astype("float64")
    zero = 50 * np.exp(-margins) < 1e-12
    wanted = {"share": zero.mean(), "share_without_any": 0.0, "share_not_finite": 0.0}
    assert verdict.figures == wanted
    assert verdict.suspect


def test_zero_gradients_without_any(subject_of, middle):
    verdict = judge(
        "zero_gradients",
        subject_of(lambda x: tf.round(x * [[3.0, 1.0]]), *middle),
    )
    assert verdict.suspect
    wanted = {"share": 1.0, "share_without_any": 1.0, "share_not_finite": 0.0}
    assert verdict.figures == wanted
    assert "BPDA" in verdict.advice


def no_number_at_zero(x):
    """Right by far, through a square root that has no derivative at zero."""
    root = tf.sqrt(x[:, 1:])
    return tf.concat([3.0 + x[:, :1] + root, tf.zeros_like(root)], axis=-1)


@pytest.fixture
def rootless(subject_of):
    x = np.full((200, 2), 0.5, "float32")
    x[:80, 1] = 0.0
    return subject_of(no_number_at_zero, x, np.zeros(200, int))


def test_gradients_that_are_no_number(rootless):
    verdict = judge("zero_gradients", rootless)
    assert verdict.suspect
    assert verdict.figures["share_not_finite"] == 0.4
    assert verdict.figures["share"] == verdict.figures["share_without_any"] == 0.0
    assert "NaN or infinite at 40.0 % of 200" in verdict.says


def test_points_that_are_no_number_fool_nobody(rootless):
    # The margin is 3 at least and moves by less than one within the radius.
    verdict = judge("logit_scale", rootless)
    assert not verdict.suspect
    assert "leaves 100.0 % right" in verdict.says


@pytest.mark.slow
def test_linearity_is_that_of_gradients_that_are_numbers(rootless):
    with pytest.warns(RuntimeWarning, match="NaN or infinite at 80 of 200"):
        figures = judge("local_linearity", rootless).figures
    assert np.isfinite(list(figures.values())).all()
    assert figures["alignment"] > 0.9


def test_softmax_outputs(subject_of):
    x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
    y = np.zeros(50, int)
    probabilities = judge("softmax_outputs", subject_of(tf.nn.softmax, x, y))
    assert probabilities.suspect
    assert probabilities.figures == {"share": 1.0, "saturated": 0.0}
    sharp = judge("softmax_outputs", subject_of(lambda x: tf.nn.softmax(1e6 * x), x, y))
    assert sharp.figures == {"share": 1.0, "saturated": 1.0}
    assert not judge("softmax_outputs", subject_of(lambda x: x, x, y)).suspect
    unit = judge("softmax_outputs", subject_of(lambda x: tf.sigmoid(x[:, :1]), x, y))
    assert unit.suspect
    # A number between zero and one that goes beyond elsewhere is a logit.
    linear = judge("softmax_outputs", subject_of(lambda x: x[:, :1], abs(x) / 9, y))
    assert not linear.suspect


def test_randomness(subject_of, middle):
    def noisy(x):
        return tf.concat([x, 1.0 - x], -1) + tf.random.normal(tf.shape(x))

    def python_noise(x):
        return tf.concat([x, 1.0 - x], -1) + np.random.normal()

    for model in (noisy, python_noise):
        verdict = judge("randomness", subject_of(model, *middle))
        assert verdict.suspect
        assert verdict.figures["largest_difference"] > 0.01
    verdict = judge("randomness", subject_of(lambda x: 1e6 * x, *middle))
    assert verdict.figures == {"largest_difference": 0.0, "decisions_changed": 0.0}


@pytest.mark.parametrize("constant", [-1e9, -3e38])
def test_randomness_is_seen_beside_a_huge_logit(subject_of, middle, constant):
    """A class that is switched off, as vocabularies and masks have it."""

    def model(x, noise):
        z = tf.concat([x, 0.9 * x], -1) + noise * tf.random.normal((tf.shape(x)[0], 2))
        return tf.concat([z, tf.fill(tf.shape(x), constant)], -1)

    noisy = judge("randomness", subject_of(lambda x: model(x, 0.1), *middle, classes=3))
    assert noisy.suspect
    assert noisy.figures["largest_difference"] > 0.1
    still = judge("randomness", subject_of(lambda x: model(x, 0.0), *middle, classes=3))
    assert not still.suspect


def test_randomness_of_decisions_alone_and_of_rounding(subject_of, middle):
    """Beside an offset the noise is small; what it changes is not."""

    def model(x, offset, noise):
        z = tf.concat([x, x + 0.015], -1) + noise * tf.random.normal(
            (tf.shape(x)[0], 2)
        )
        return offset + z

    verdict = judge("randomness", subject_of(lambda x: model(x, 1e3, 0.01), *middle))
    assert verdict.figures["largest_difference"] <= 1e-4
    assert verdict.figures["decisions_changed"] > 0.1
    assert verdict.suspect
    # A tie that the last digit breaks.
    tie = judge("randomness", subject_of(lambda x: model(x, 1e5, 0.02), *middle))
    assert tie.figures["decisions_changed"] > 0.1
    assert not tie.suspect


@pytest.mark.slow
def test_single_step_beats_iterative(subject_of, landscape):
    # From 0.5001 the full step lands beyond 0.095, where the model errs. Many steps
    # climb to the hill at 0.04 from everywhere but the outer tenth of the ball.
    model = landscape([0.0, 0.04, 0.09, 0.095, 0.5], [-1.0, -0.5, -0.9, 1.0, 1.0])
    x = np.full((200, 1), 0.5001, "float32")
    subject = subject_of(model, x, np.zeros(200, int))
    verdict = judge("single_step_beats_iterative", subject)
    assert verdict.suspect
    assert verdict.figures["fgsm_accuracy"] == 0.0
    # Starts beyond the valley at 0.09: one tenth, on either side.
    share = verdict.figures["share"]
    assert abs(share - 0.9) < 4 * (0.9 * 0.1 / 200) ** 0.5
    assert share == verdict.figures["pgd_accuracy"]
    error = (share * (1 - share) / 200) ** 0.5
    assert verdict.figures["standard_error"] == pytest.approx(error)


@pytest.mark.slow
def test_black_box_beats_white_box(subject_of, landscape, middle):
    model = landscape(*PLATEAU)
    verdict = judge("black_box_beats_white_box", subject_of(model, *middle))
    assert verdict.suspect
    # Square starts at the edge: it finds all that PGD and APGD started inside of.
    assert verdict.figures["share_by_square"] == verdict.figures["share_before_effort"]
    assert (
        verdict.figures["share_before_effort"] == verdict.figures["white_box_accuracy"]
    )
    # PGD, then six APGD restarts, each with four chances in five to miss.
    expected = 0.8**7
    error = (expected * (1 - expected) / 200) ** 0.5
    assert abs(verdict.figures["share"] - expected) < 4 * error


def test_points_given_count_as_white_box(subject_of, landscape, middle):
    x, y = middle
    found = np.where(np.arange(200)[:, None] < 150, x + 0.1, x).astype("float32")
    subject = subject_of(landscape(*PLATEAU), x, y, results={"mine": found})
    assert not subject.under_white_box[:150].any()
    np.testing.assert_array_equal(
        subject.under_white_box[150:], subject.under_pgd[150:]
    )


@pytest.mark.slow
def test_black_box_by_transfer(subject_of, monkeypatch):
    # The gradient of the model shows the wrong way, that of the surrogate does not.
    def flipped(x):
        z = tf.stop_gradient(2.0 * x) - x
        return tf.concat([z - 0.95, tf.zeros_like(z)], -1)

    def surrogate(x):
        return tf.concat([x - 0.45, tf.zeros_like(x)], -1)

    x, y = np.full((100, 1), 0.999, "float32"), np.zeros(100, int)
    subject = subject_of(flipped, x, y, surrogates={"twin": surrogate})
    # Every restart of APGD would find an error at its random start.
    monkeypatch.setattr(APGD, "__call__", lambda self, model, x, y: x)
    verdict = judge("black_box_beats_white_box", subject)
    assert verdict.suspect
    assert verdict.figures["share_by_transfer"] == verdict.figures["share"] > 0.2


@pytest.mark.slow
def test_more_steps(subject_of, landscape, middle):
    verdict = judge("more_steps", subject_of(landscape(*PLATEAU), *middle))
    assert verdict.suspect
    # The same random start again, then four others.
    assert verdict.figures["accuracy_more_steps"] == verdict.figures["accuracy"]
    expected = 0.8**5
    error = (expected * (1 - expected) / 200) ** 0.5
    assert verdict.figures["share"] == pytest.approx(
        verdict.figures["accuracy"] - verdict.figures["accuracy_more_starts"]
    )
    assert abs(verdict.figures["accuracy_more_starts"] - expected) < 4 * error


def test_epsilon_curve_that_rises(subject_of, landscape, middle):
    # Errors only in a band around a distance of 0.1; farther out the slope leads away.
    model = landscape(
        [0.0, 0.08, 0.1, 0.12, 0.5, 1.0], [-2.0, -0.5, 1.0, -1.9, -1.0, -1.0]
    )
    verdict = judge("epsilon_curve", subject_of(model, *middle))
    assert verdict.suspect
    curve = [verdict.figures[f"accuracy_at_{r}"] for r in ("0.05", "0.1", "0.2", "1")]
    assert curve[0] == 1.0
    assert curve[1] < 0.05 < curve[2] < curve[3]
    assert verdict.figures["largest_rise"] > 0.2


def test_epsilon_curve_that_ends_high(subject_of):
    x = np.linspace(0.0, 1.0, 100, dtype="float32")[:, None]
    y = (x[:, 0] > 0.5).astype(int)

    def rounded(x):
        return tf.concat([0.5 - tf.round(x), tf.round(x) - 0.5], -1)

    verdict = judge("epsilon_curve", subject_of(rounded, x, y))
    assert verdict.figures["chance"] == 0.5
    # A random start anywhere is right at one half: above that only by chance.
    assert 0.2 < verdict.figures["accuracy_at_1"] < 0.8

    def linear(x):
        return tf.concat([0.5 - x, x - 0.5], -1)

    verdict = judge("epsilon_curve", subject_of(linear, x, y))
    assert not verdict.suspect
    assert verdict.figures["accuracy_at_1"] == 0.0
    assert verdict.figures["accuracy_at_0.1"] == ((x < 0.4) | (x > 0.6)).mean()


@pytest.mark.parametrize("factor", [1.0, 1e4])
def test_logit_scale(subject_of, factor):
    x = np.full((100, 2), [0.55, 0.5], "float32")
    subject = subject_of(lambda x: factor * x, x, np.zeros(100, int))
    verdict = judge("logit_scale", subject)
    assert verdict.suspect == (factor == 1e4)
    assert (
        verdict.figures["accuracy_margin"] == verdict.figures["accuracy_0.001"] == 0.0
    )
    assert verdict.figures["accuracy"] == float(factor == 1e4)


@pytest.mark.slow
def test_local_linearity_of_a_line_and_a_parabola(subject_of):
    x, y = np.full((50, 1), 0.5, "float32"), np.zeros(50, int)

    def line(x):
        return tf.concat([tf.zeros_like(x), 3.0 * (x - 1.0)], -1)

    figures = judge("local_linearity", subject_of(line, x, y)).figures
    assert figures["alignment"] == pytest.approx(1.0)
    assert figures["gamma"] == pytest.approx(0.0, abs=1e-5)

    def parabola(x):
        return tf.concat([tf.zeros_like(x), (x + 0.5) ** 2 - 9.0], -1)

    # L(x + d) - L(x) - d L'(x) = d^2, largest at the end of the step, which gains 2 d.
    figures = judge("local_linearity", subject_of(parabola, x, y)).figures
    assert figures["gamma"] == pytest.approx(0.1**2, rel=1e-3)
    assert figures["relative_gamma"] == pytest.approx(0.1 / 2, rel=1e-3)


@pytest.mark.slow
def test_local_linearity_of_shattered_gradients(subject_of):
    x = np.random.default_rng(0).uniform(0.2, 0.8, (100, 50)).astype("float32")

    def shattered(x):
        loss = tf.reduce_sum(tf.sin(1000.0 * x), -1, keepdims=True) - 100.0
        return tf.concat([tf.zeros_like(loss), loss], -1)

    verdict = judge("local_linearity", subject_of(shattered, x, np.zeros(100, int)))
    assert verdict.suspect
    # Four draws of 100 examples of 50 independent signs-like products.
    assert abs(verdict.figures["alignment"]) < 4 / (4 * 100 * 50) ** 0.5


def test_noise_finds_what_gradients_do_not(subject_of, landscape, middle):
    verdict = judge("noise", subject_of(landscape(*PLATEAU), *middle))
    assert verdict.suspect
    assert verdict.figures["worst_noise_accuracy"] == 0.0
    assert verdict.figures["share"] == verdict.figures["pgd_accuracy"]
    # One draw in five errs, 100 draws of 200 examples.
    assert abs(verdict.figures["noise_accuracy"] - 0.8) < 4 * (0.16 / 20_000) ** 0.5


def test_noise_of_a_line_in_many_dimensions(subject_of):
    # Noise moves the mean of 400 features by 0.003, the gradient by 0.1.
    x, y = np.full((50, 400), 0.55, "float32"), np.zeros(50, int)

    def line(x):
        mean = tf.reduce_mean(x, -1, keepdims=True) - 0.5
        return tf.concat([mean, -mean], -1)

    verdict = judge("noise", subject_of(line, x, y))
    assert not verdict.suspect
    assert verdict.figures["noise_accuracy"] == 1.0
    assert verdict.figures["pgd_accuracy"] == 0.0


def test_noise_of_a_radius_too_large_for_the_data_accuses_nobody(subject_of):
    """Where PGD leaves nothing, noise is none the better for doing half of it."""
    w = np.random.default_rng(0).normal(size=(784, 10)).astype("float32")
    y = np.arange(50) % 10
    x = (0.5 + 0.005 * w[:, y].T).astype("float32")

    def linear(x):
        return tf.linalg.matmul(x - 0.5, w)

    verdict = judge("noise", subject_of(linear, x, y, epsilon=0.3))
    assert verdict.figures["pgd_accuracy"] == 0.0
    assert verdict.figures["noise_accuracy"] < 0.5
    assert not verdict.suspect


def test_few_examples_accuse_nobody(subject_of):
    x = np.random.default_rng(0).uniform(0.2, 0.8, (9, 400)).astype("float32")

    def shattered(x):
        loss = tf.reduce_sum(tf.sin(1000.0 * x), -1, keepdims=True)
        return tf.concat([tf.zeros_like(loss) + 1.0, loss], -1)

    y = tf.argmax(shattered(x), -1).numpy()
    verdict = judge("local_linearity", subject_of(shattered, x, y))
    assert abs(verdict.figures["alignment"]) < 0.1
    assert not verdict.suspect
