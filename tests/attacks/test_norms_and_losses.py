"""Results never leave the ball or the range, in any norm, dtype and unit."""

import numpy as np
import tensorflow as tf

from keras_jsigr.attacks import FGSM, PGD
from keras_jsigr.attacks.losses import (
    ascent_loss,
    attack_loss,
    dlr_loss,
    misclassified,
    targeted_dlr_loss,
)
from keras_jsigr.attacks.norms import (
    L1Ball,
    L2Ball,
    LinfBall,
    l2_norm,
    mean_normalize,
    project_l1,
    range_slack,
    round_towards,
    safe_normalize,
    sparse_sign,
)
from keras_jsigr.core.batching import classified_rightly
from keras_jsigr.core.scores import class_score

RNG = np.random.default_rng(3)


W = RNG.normal(size=(40, 3))


def network(x):
    return tf.tanh(tf.cast(x, tf.float32) @ tf.constant(W, tf.float32))


def edge_heavy(high, dtype):
    x = RNG.uniform(0.0, high, (20, 40))
    x[:, :5], x[:, 5:10] = 0.0, high
    return x.astype(dtype)


def distance(a, b, norm):
    delta = a.astype("float64") - b.astype("float64")
    return np.abs(delta).max() if norm == "linf" else np.linalg.norm(delta, axis=1).max()


def test_inside():
    for norm, dtype in (("l2", "float16"), ("linf", "float64")):
        x = edge_heavy(1.0, dtype)
        epsilon = 0.1 if norm == "linf" else 0.7
        x_adv = PGD(epsilon=epsilon, norm=norm, steps=5, restarts=2)(network, x)
        assert x_adv.dtype == dtype
        assert distance(x_adv, x, norm) <= epsilon + 1e-6
        assert distance(x_adv, x, norm) > 0.9 * epsilon
        assert x_adv.min() >= 0.0
        assert x_adv.max() <= 1.0


def test_inside_in_bytes():
    for norm in ["linf", "l2"]:
        x, epsilon = edge_heavy(255.0, "float32"), 8.1
        x_adv = PGD(epsilon=epsilon, norm=norm, input_range=(0, 255))(network, x)
        assert distance(x_adv, x, norm) <= epsilon + 1e-6
        assert x_adv.min() >= 0.0
        assert x_adv.max() <= 255.0


def test_inside_in_bytes_as_far_as_float32_tells():
    """All components are rounded the same way: the most that they add up to."""

    def check(epsilon):
        x = np.full((2, 784), 200.0, "float32")
        attack = FGSM(epsilon=epsilon, norm="l2", input_range=(0, 255))

        def brightness(x):
            mean = tf.reduce_mean(x, axis=1, keepdims=True)
            return tf.concat([200.0 - mean, tf.zeros_like(mean)], axis=1)

        x_adv = attack(brightness, x, [0, 0])
        excess = distance(x_adv, x, "l2") - epsilon
        assert 1e-6 < excess <= range_slack("float32", attack.input_range)

    for epsilon in [1.0, 8.0]:
        check(epsilon)


def test_inside_bfloat16():
    x = tf.cast(edge_heavy(1.0, "float32"), tf.bfloat16)
    x_adv = PGD(epsilon=0.1)(network, x)
    assert x_adv.dtype == tf.bfloat16
    a, b = (tf.cast(t, tf.float64).numpy() for t in (x_adv, x))
    assert distance(a, b, "linf") <= 0.1 + 1e-6
    assert a.min() >= 0.0
    assert a.max() <= 1.0


def test_projection_of_a_point_inside_is_itself():
    for make in [LinfBall, L2Ball]:
        origin = tf.constant(RNG.uniform(0.3, 0.7, (4, 6)).astype("float32"))
        ball = make(origin, 0.2, (0.0, 1.0))
        point = origin + 0.05 * tf.sign(origin - 0.5)
        np.testing.assert_allclose(ball.project(point), point, atol=1e-7)
        np.testing.assert_array_equal(ball.project(origin), origin)


def test_samples_fill_the_ball():
    origin = tf.fill((2000, 2), 0.5)
    seed = tf.constant([1, 2])
    cube = (LinfBall(origin, 0.2, (0.0, 1.0)).sample(seed) - origin) / 0.2
    # Moments of the uniform law, within five standard errors.
    assert abs(float(tf.reduce_mean(cube))) < 5 * np.sqrt(1 / 3 / 4000)
    assert abs(float(tf.reduce_mean(cube**2)) - 1 / 3) < 5 * np.sqrt(4 / 45 / 4000)
    disc = (L2Ball(origin, 0.2, (0.0, 1.0)).sample(seed) - origin) / 0.2
    squares = tf.reduce_sum(disc**2, axis=1)  # uniform on 0..1 in two dimensions
    assert abs(float(tf.reduce_mean(squares)) - 0.5) < 5 * np.sqrt(1 / 12 / 2000)
    assert abs(float(tf.reduce_mean(disc))) < 5 * np.sqrt(0.25 / 4000)


def test_exactly_zero_and_tiny():
    for function in [safe_normalize, mean_normalize, l2_norm]:
        x = tf.constant([[0.0, 0.0], [0.0, -3e-36], [1e30, 0.0]])
        result = function(x).numpy()
        assert np.isfinite(result).all()
        assert (result[0] == 0).all()
        if function is safe_normalize:
            np.testing.assert_allclose(result[1:], [[0, -1], [1, 0]], rtol=1e-6)


def test_rounding_stays_between():
    for dtype in [tf.float16, tf.bfloat16]:
        origin = tf.cast(RNG.uniform(size=(50, 40)), dtype)
        origin = tf.cast(origin, tf.float32)
        scales = tf.constant(10.0 ** RNG.uniform(-6, 0, (50, 1)), tf.float32)
        x = origin + scales * tf.constant(RNG.uniform(-1, 1, (50, 40)), tf.float32)
        near = tf.cast(round_towards(x, origin, dtype), tf.float32)
        # Below the smallest normal number the spacing is absolute: 6e-8 at most.
        assert float(tf.reduce_max(tf.abs(near - origin) - tf.abs(x - origin))) <= 1e-7
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = round_towards(x, origin, dtype)
        np.testing.assert_array_equal(tape.gradient(y, x), tf.ones_like(x))


RNG_L1_BALL = np.random.default_rng(12)


def oracle(delta, low, high, epsilon):
    """Soft thresholding by bisection, one example in float64; low <= 0 <= high."""

    def moved(shift):
        thinner = np.sign(delta) * np.maximum(np.abs(delta) - shift, 0)
        return np.clip(thinner, low, high)

    if np.abs(moved(0)).sum() <= epsilon:
        return moved(0)
    below, above = 0.0, np.abs(delta).max()
    for _ in range(200):
        middle = (below + above) / 2
        if np.abs(moved(middle)).sum() > epsilon:
            below = middle
        else:
            above = middle
    return moved(above)


def test_projection():
    for epsilon in [1e-3, 0.3, 2.0, 12.0, 1e3]:
        for dtype in ["float32", "float64"]:
            origin = RNG_L1_BALL.uniform(size=(40, 5, 6)).astype(dtype)
            origin[:, 0], origin[:, 1] = 0.0, 1.0
            scale = 10.0 ** RNG_L1_BALL.uniform(-3, 1, (40, 1, 1))
            x = (origin + scale * RNG_L1_BALL.normal(size=origin.shape)).astype(dtype)
            ball = L1Ball(tf.constant(origin), epsilon, (0.0, 1.0))
            actual = ball.project(tf.constant(x)).numpy()
            wide, centre = x.astype("float64"), origin.astype("float64")
            expected = [
                oracle(p - o, -o, 1 - o, epsilon) for p, o in zip(wide, centre, strict=True)
            ]
            np.testing.assert_allclose(actual, centre + expected, atol=1.5e-7)
            length = np.abs(actual.astype("float64") - centre).sum((1, 2))
            assert length.max() <= epsilon * (1 + 1e-11)
            assert actual.min() >= 0.0
            assert actual.max() <= 1.0


def test_no_other_point_is_nearer():
    """The variational inequality <p - x, q - p> >= 0 for points q of the set."""
    origin = tf.constant(RNG_L1_BALL.uniform(size=(30, 20)))
    x = origin + tf.constant(RNG_L1_BALL.normal(size=(30, 20)))
    ball = L1Ball(origin, 1.5, (0.0, 1.0))
    nearest = ball.project(x)
    for number in range(20):
        q = ball.sample(tf.constant([3, number]))
        products = tf.reduce_sum((nearest - x) * (q - nearest), axis=1)
        assert float(tf.reduce_min(products)) >= -1e-12


def test_many_components_stay_inside():
    """Thousands of roundings do not add up, in bytes neither."""
    for high, epsilon in ((1.0, 12.0), (255.0, 3000.0)):
        origin = RNG_L1_BALL.uniform(0, high, (3, 32, 32, 3)).astype("float32")
        x = origin + RNG_L1_BALL.normal(size=origin.shape).astype("float32") * high
        ball = L1Ball(tf.constant(origin), epsilon, (0.0, high))
        moved = ball.project(tf.constant(x)).numpy().astype("float64") - origin
        length = np.abs(moved).sum((1, 2, 3))
        assert length.max() <= epsilon + 1e-9
        # Each of the few hundred that move is rounded by half a unit or so.
        assert length.min() >= epsilon - 1e-4 * high


def test_inside_is_kept_and_the_region_holds():
    origin = tf.constant(RNG_L1_BALL.uniform(0.3, 0.7, (4, 6)).astype("float32"))
    inside = origin + 0.02 * tf.sign(origin - 0.5)
    ball = L1Ball(origin, 0.2, (0.0, 1.0))
    np.testing.assert_array_equal(ball.project(inside), inside)
    np.testing.assert_array_equal(ball.project(origin), origin)
    region = tf.constant([[1.0, 0, 1, 0, 0, 1]] * 4)
    some = L1Ball(origin, 0.2, (0.0, 1.0), region)
    np.testing.assert_array_equal(some.dimensions, [3.0] * 4)
    gradient = tf.constant(RNG_L1_BALL.normal(size=(4, 6)).astype("float32")) * region
    for point in (
        some.project(origin + 1.0),
        some.sample(tf.constant([0, 1])),
        origin + some.steepest(gradient),
    ):
        changed = np.abs(point - origin) > 0
        assert changed[:, [0, 2, 5]].any()
        assert not changed[:, [1, 3, 4]].any()


def test_samples_fill_the_ball_l1_ball():
    origin, n = tf.fill((4000, 3), 0.5), 4000
    ball = L1Ball(origin, 0.2, (0.0, 1.0))
    points = ((ball.sample(tf.constant([1, 2])) - origin) / 0.2).numpy()
    # The norm is the third root of a uniform variable: mean 3/4, variance 3/80.
    length = np.abs(points).sum(1)
    assert length.max() <= 1.0 + 1e-6
    assert abs(length.mean() - 0.75) < 5 * np.sqrt(3 / 80 / n)
    # Each magnitude follows Beta(1, 3): mean 1/4, second moment 1/10.
    assert np.abs(np.abs(points).mean(0) - 0.25).max() < 5 * np.sqrt(3 / 80 / n)
    assert np.abs(points.mean(0)).max() < 5 * np.sqrt(0.1 / n)
    again = ball.sample(tf.constant([1, 2]))
    np.testing.assert_array_equal((again - origin) / 0.2, points)


def test_sparse_steps():
    gradient = tf.constant([[4.0, -3.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1, 1, -1, 0]])
    step = sparse_sign(gradient, tf.constant([2.0, 2.0, 1.0])).numpy()
    expected = [[0.5, -0.5, 0, 0], [0, 0, 0, 0], [1 / 3, 1 / 3, -1 / 3, 0]]
    np.testing.assert_allclose(step, expected, atol=1e-7)
    everything = sparse_sign(gradient[:1], tf.constant([99.0]))
    np.testing.assert_allclose(everything, [[0.25, -0.25, 0.25, 0.25]])
    at_least_one = sparse_sign(gradient[:1], tf.constant([0.0]))
    np.testing.assert_allclose(at_least_one, [[1.0, 0, 0, 0]])


def test_plain_steps_move_a_twentieth():
    origin = tf.zeros((2, 10, 10, 1))
    ball = L1Ball(origin, 1.0, (0.0, 1.0))
    gradient = tf.constant(RNG_L1_BALL.normal(size=(2, 10, 10, 1)), tf.float32)
    step = ball.steepest(gradient).numpy().reshape(2, -1)
    assert ((step != 0).sum(1) == 5).all()
    np.testing.assert_allclose(np.abs(step).sum(1), 1.0, rtol=1e-6)


def test_radii_without_limit_and_zero():
    delta = tf.constant(RNG_L1_BALL.normal(size=(3, 7)))
    room = tf.abs(delta) * 0.5
    free = project_l1(delta, room, tf.constant(np.inf, tf.float64))
    np.testing.assert_allclose(free, 0.5 * delta)
    none = project_l1(delta, room, tf.constant(0.0, tf.float64))
    np.testing.assert_array_equal(none, tf.zeros_like(delta))


def test_compiled_for_any_batch():
    @tf.function(input_signature=[tf.TensorSpec((None, 4, 4, 1), tf.float32)])
    def project(x):
        return L1Ball(tf.zeros_like(x) + 0.5, 0.3, (0.0, 1.0)).project(x)

    for n in (0, 1, 5):
        x = tf.constant(RNG_L1_BALL.uniform(size=(n, 4, 4, 1)).astype("float32"))
        eager = L1Ball(tf.zeros_like(x) + 0.5, 0.3, (0.0, 1.0)).project(x)
        np.testing.assert_allclose(project(x), eager, atol=1e-7)


RNG_DLR = np.random.default_rng(11)


Z = RNG_DLR.normal(size=(50, 6)).astype("float32") * 3


Y = RNG_DLR.integers(0, 6, 50)


GOALS = (Y + RNG_DLR.integers(1, 6, 50)) % 6


ROWS, GOAL_ROWS = tf.one_hot(Y, 6), tf.one_hot(GOALS, 6)


def plain_dlr(z, y):
    ordered = np.sort(z)[::-1]
    return -(z[y] - np.delete(z, y).max()) / (ordered[0] - ordered[2])


def plain_targeted(z, y, t):
    ordered = np.sort(z)[::-1]
    return -(z[y] - z[t]) / (ordered[0] - (ordered[2] + ordered[3]) / 2)


def gradient(function, z, *rows):
    z = tf.convert_to_tensor(z)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = function(z, *rows)
    return tape.gradient(value, z).numpy()


CASES = [(dlr_loss, (ROWS,)), (targeted_dlr_loss, (ROWS, GOAL_ROWS))]


def test_values():
    z = Z.astype("float64")
    expected = [plain_dlr(row, y) for row, y in zip(z, Y, strict=True)]
    np.testing.assert_allclose(dlr_loss(Z, ROWS), expected, rtol=1e-4, atol=1e-6)
    expected = [plain_targeted(*row) for row in zip(z, Y, GOALS, strict=True)]
    values = targeted_dlr_loss(Z, ROWS, GOAL_ROWS)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)


def test_positive_exactly_where_misclassified():
    wrong = misclassified(Z, ROWS).numpy()
    assert 0 < wrong.sum() < 50
    values = dlr_loss(Z, ROWS).numpy()
    np.testing.assert_array_equal(values > 0, wrong)


def test_scale_and_shift():
    """Equal values, and a gradient that is only shorter or longer."""
    for loss, rows in CASES:
        for scale in [1e-30, 1e-3, 1e3, 1e30]:
            np.testing.assert_allclose(loss(Z * scale, *rows), loss(Z, *rows), rtol=1e-4)
            scaled = gradient(loss, Z * np.float32(scale), *rows).astype("float64") * scale
            np.testing.assert_allclose(scaled, gradient(loss, Z, *rows), rtol=1e-3, atol=1e-6)
            np.testing.assert_allclose(loss(Z + 8, *rows), loss(Z, *rows), rtol=1e-3, atol=1e-4)


def test_gradient():
    """Central differences in float64: the rank of a logit does not change nearby."""
    for loss, plain, rows in [
        (dlr_loss, plain_dlr, (Y,)),
        (targeted_dlr_loss, plain_targeted, (Y, GOALS)),
    ]:
        z = np.linspace(-2, 2, 6)[RNG_DLR.permuted(np.tile(np.arange(6), (50, 1)), axis=1)]
        h, expected = 1e-6, np.zeros_like(z)
        for i in range(6):
            step = h * np.eye(6)[i]
            for b in range(50):
                at = [row[b] for row in rows]
                rise = plain(z[b] + step, *at) - plain(z[b] - step, *at)
                expected[b, i] = rise / (2 * h)
        targets = [tf.one_hot(row, 6) for row in rows]
        actual = gradient(loss, z.astype("float32"), *targets)
        np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_ties_are_finite():
    for loss, rows in CASES:
        for z in (tf.zeros((50, 6)), tf.constant(np.round(Z / 3))):
            assert np.isfinite(loss(z, *rows)).all()
            assert np.isfinite(gradient(loss, z, *rows)).all()


def test_few_classes_fall_back():
    z, rows = tf.constant([[2.0, 5.0], [1.0, 0.0]]), tf.constant([[1.0, 0.0]] * 2)
    np.testing.assert_allclose(dlr_loss(z, rows), [3.0, -1.0])
    one, targets = tf.constant([[2.0], [-1.0]]), tf.constant([[1.0], [1.0]])
    np.testing.assert_allclose(dlr_loss(one, targets), [-2.0, 1.0])
    goals = 1.0 - targets
    np.testing.assert_allclose(targeted_dlr_loss(one, targets, goals), [-2.0, 1.0])
    three = tf.constant([[3.0, 1.0, 0.0]])
    values = targeted_dlr_loss(three, tf.eye(3)[:1], tf.eye(3)[2:])
    np.testing.assert_allclose(values, [-3.0])


def test_always_float32():
    for dtype in [tf.float16, tf.bfloat16, tf.float64]:
        for loss, rows in CASES:
            assert loss(tf.cast(Z, dtype), *rows).dtype == tf.float32


def test_classes_ruled_out_leave_the_ratio_of_the_others():
    inf = float("inf")
    z, rows = tf.constant([[4.0, 3.0, 1.0, 1.0, -inf]]), tf.eye(5)
    np.testing.assert_allclose(dlr_loss(z, rows[:1]), [-1 / 3], rtol=1e-6)
    targeted = targeted_dlr_loss(z, rows[:1], rows[1:2])
    np.testing.assert_allclose(targeted, [-1 / 3], rtol=1e-6)
    # No third logit, as with two classes: the margin.
    two = tf.constant([[4.0, 3.0, -inf, -inf]])
    np.testing.assert_allclose(dlr_loss(two, tf.eye(4)[:1]), [-1.0])
    np.testing.assert_allclose(targeted_dlr_loss(two, *tf.eye(4)[:2, None]), [-1.0])
    slope = gradient(dlr_loss, two, tf.eye(4)[:1])
    np.testing.assert_array_equal(slope, [[-1.0, 1.0, 0.0, 0.0]])


RNG_LOSSES = np.random.default_rng(4)


Z_LOSSES = RNG_LOSSES.normal(size=(20, 4)).astype("float32") * 3


Y_LOSSES = RNG_LOSSES.integers(0, 4, 20)


TARGETS = tf.one_hot(Y_LOSSES, 4)


def gradient_losses(function, z, targets, loss):
    z = tf.constant(z)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = function(z, targets, loss)
    return tape.gradient(value, z).numpy()


def test_values_losses():
    z = Z_LOSSES.astype("float64")
    ce = np.log(np.exp(z).sum(1)) - z[np.arange(20), Y_LOSSES]
    others = np.where(np.eye(4)[Y_LOSSES] > 0, -np.inf, z).max(1)
    np.testing.assert_allclose(attack_loss(Z_LOSSES, TARGETS), ce, rtol=1e-4)
    margin = attack_loss(Z_LOSSES, TARGETS, "margin")
    np.testing.assert_allclose(margin, others - z[np.arange(20), Y_LOSSES], rtol=1e-5)
    np.testing.assert_array_equal(margin > 0, misclassified(Z_LOSSES, TARGETS))


def test_ascent_is_parallel_to_cross_entropy():
    a = gradient_losses(ascent_loss, Z_LOSSES, TARGETS, "cross_entropy")
    b = gradient_losses(attack_loss, Z_LOSSES, TARGETS, "cross_entropy")
    a, b = (g / np.linalg.norm(g, axis=1, keepdims=True) for g in (a, b))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_soft_targets_get_plain_cross_entropy():
    soft = tf.constant(np.full((20, 4), 0.25, "float32"))
    a = gradient_losses(ascent_loss, Z_LOSSES, soft, "cross_entropy")
    b = gradient_losses(attack_loss, Z_LOSSES, soft, "cross_entropy")
    np.testing.assert_array_equal(a, b)


def test_one_sigmoid_unit():
    for loss in ["cross_entropy", "margin"]:
        z, targets = tf.constant([[2.0], [-1.0]]), tf.constant([[1.0], [1.0]])
        assert misclassified(z, targets).numpy().tolist() == [False, True]
        pair = tf.concat([tf.zeros_like(z), z], axis=1)
        both = attack_loss(pair, tf.concat([1 - targets, targets], axis=1), loss)
        np.testing.assert_allclose(attack_loss(z, targets, loss), both, rtol=1e-6)
        assert (gradient_losses(ascent_loss, z, targets, loss) < 0).all()


NAN, INF = float("nan"), float("inf")


def test_a_row_that_names_no_class_is_wrong_whatever_the_label():
    for label in [0, 1, 2]:
        z = tf.constant([[NAN, 1.0, 0.0], [0.0, 1.0, NAN], [0.0, INF, 1.0], [-INF] * 3])
        assert misclassified(z, tf.one_hot([label] * 4, 3)).numpy().all()
        assert not classified_rightly(z.numpy(), [label] * 4).any()


def test_a_class_ruled_out_leaves_an_answer():
    z, rows = tf.constant([[2.0, -INF, 1.0]] * 3), tf.eye(3)
    assert misclassified(z, rows).numpy().tolist() == [False, True, True]
    assert classified_rightly(z.numpy(), [0, 1, 2]).tolist() == [True, False, False]


def test_a_class_ruled_out_changes_no_loss():
    for function in [attack_loss, ascent_loss]:
        for loss in ["cross_entropy", "margin", "dlr"]:
            for soft in [False, True]:
                rows = 0.5 * TARGETS + 0.125 if soft else TARGETS
                wider = tf.pad(rows, [[0, 0], [0, 1]])
                z = np.concatenate([Z_LOSSES, np.full((20, 1), -INF, "float32")], axis=1)
                np.testing.assert_allclose(function(z, wider, loss), function(Z_LOSSES, rows, loss))
                expected = gradient_losses(function, Z_LOSSES, rows, loss)
                actual = gradient_losses(function, z, wider, loss)
                np.testing.assert_allclose(actual[:, :4], expected, rtol=1e-6)
                np.testing.assert_array_equal(actual[:, 4], 0.0)


def test_a_class_ruled_out_changes_no_log_odds():
    z = np.concatenate([Z_LOSSES, np.full((20, 1), -INF, "float32")], axis=1)
    expected = class_score(Z_LOSSES, TARGETS, "margin")
    actual = class_score(z, tf.pad(TARGETS, [[0, 0], [0, 1]]), "margin")
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_one_sigmoid_unit_without_a_number():
    z, targets = tf.constant([[NAN], [NAN], [-INF]]), tf.constant([[0.0], [1.0], [0.0]])
    assert misclassified(z, targets).numpy().tolist() == [True, True, False]
