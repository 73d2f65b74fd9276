"""SPSA: an unbiased gradient, the linear optimum, and nothing but outputs."""

from statistics import NormalDist

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import SPSA, AttackContext, GaussianNoise, HopSkipJump, UniformNoise
from keras_jsigr.attacks.hopskipjump import (
    bisect,
    decision_gradient,
    geometric_step_search,
    other_examples,
)
from keras_jsigr.attacks.spsa import spsa_gradient
from keras_jsigr.core.batching import chunked_sum, draws_at_once

RNG = np.random.default_rng(41)


# No difference of the columns near zero, whose sign would drown in the noise.
W = np.zeros((6, 2), "float32")


W[:, 1] = RNG.choice([-1, 1], 6) * RNG.uniform(0.5, 1.5, 6)


SHARP = {"samples": 1024, "early_stop": False}


X = RNG.uniform(0.3, 0.7, (9, 6)).astype("float32")


def linear(x):
    return tf.cast(x, tf.float32) @ tf.constant(W)


def downhill(y):
    return np.stack([W[:, 1 - k] - W[:, k] for k in y])


def estimates(ask, x, many, **settings):
    """Independent estimates of the gradient at one point, in one go."""
    x = tf.tile(tf.constant(x)[None], [many, 1])
    return spsa_gradient(ask, x, seed=tf.constant([3, 4]), **settings).numpy()


def assert_unbiased(found, expected):
    error = found.std(axis=0) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - expected) < 5 * error + 1e-9).all()


def test_unbiased_on_a_quadratic():
    a, x = RNG.normal(size=(4, 4)), RNG.normal(size=4)

    def ask(points):
        return tf.reduce_sum(points * tf.linalg.matvec(a, points), axis=1), points

    found = estimates(ask, x, 2000, pairs=3, delta=0.5)
    assert_unbiased(found, (a + a.T) @ x)
    # The variance falls with the number of pairs.
    more = estimates(ask, x, 2000, pairs=12, delta=0.5)
    assert_unbiased(more, (a + a.T) @ x)
    np.testing.assert_allclose(found.var(0) / more.var(0), 4, rtol=0.25)


def test_known_variance():
    """`Var g_i = sum_{j != i} g_j^2` for one pair, and the mean from every pair."""
    w = np.array([1.0, -2.0, 3.0])

    def ask(points):
        return tf.linalg.matvec(points, w), points

    found = estimates(ask, np.zeros(3), 4000, pairs=1, delta=0.1)
    np.testing.assert_allclose(found.var(axis=0), [13, 10, 5], rtol=0.1)
    assert_unbiased(found, w)


def test_unbiased_at_the_edge_of_the_range():
    """Clipped points count by how far they really lie apart."""
    w = np.array([1.0, -2.0, 3.0, 0.5])

    def ask(points):
        seen = tf.clip_by_value(points, 0.0, 1.0)
        return tf.linalg.matvec(seen, w), seen

    found = estimates(ask, np.array([0.0, 1.0, 0.5, 0.04]), 4000, pairs=2, delta=0.1)
    assert_unbiased(found, w)


def test_no_room_no_gradient():
    def ask(points):
        return tf.reduce_sum(points, axis=1), points * [1.0, 0.0]

    found = estimates(ask, np.float32([0.5, 0.5]), 5, pairs=2, delta=0.1)
    assert np.isfinite(found).all()
    assert (found[:, 1] == 0).all()


def test_linear_optimum_linf():
    for optimizer, loss in [
        ("adam", "cross_entropy"),
        ("steepest", "margin"),
    ]:
        y = np.arange(9) % 2
        x_adv = SPSA(epsilon=0.1, loss=loss, optimizer=optimizer, **SHARP)(linear, X, y)
        np.testing.assert_allclose(x_adv, X + 0.1 * np.sign(downhill(y)), atol=1e-5)


def test_linear_optimum_l2():
    for optimizer in ["adam", None]:
        y, w = np.arange(9) % 2, downhill(np.arange(9) % 2)
        attack = SPSA(epsilon=0.2, norm="l2", optimizer=optimizer, **SHARP)
        gained = np.sum((attack(linear, X, y) - X) * w, axis=1)
        best = 0.2 * np.linalg.norm(w, axis=1)
        # Adam evens out the components: its fixed point is close to the best only.
        assert (gained > (0.8 if optimizer == "adam" else 0.97) * best).all()
        assert (gained <= best * (1 + 1e-5)).all()


def test_linear_l1():
    y, w = np.arange(9) % 2, downhill(np.arange(9) % 2)
    x_adv = SPSA(epsilon=0.2, norm="l1", **SHARP)(linear, X, y)
    assert (np.abs(x_adv - X).sum(axis=1) <= 0.2 + 1e-6).all()
    # The best is all of the radius on the component of the largest slope, which the
    # noise may mistake for the runner-up, 1.6% smaller.
    slopes = np.sort(np.abs(w), axis=1)
    gained = np.sum((x_adv - X) * w, axis=1)
    assert (gained >= 0.2 * slopes[:, -2] * (1 - 1e-5)).all()
    assert (gained <= 0.2 * slopes[:, -1] * (1 + 1e-5)).all()


def test_targeted_and_range():
    y = np.arange(9) % 2
    attack = SPSA(epsilon=100.0, input_range=(0, 255), targeted=True, **SHARP)
    x_adv = attack(linear, 255 * X, y)
    best = np.clip(255 * X - 100 * np.sign(downhill(y)), 0, 255)
    np.testing.assert_allclose(x_adv, best, atol=1e-3)


def test_no_gradient_is_used(cnn):
    def check(dtype):
        x = np.random.default_rng(5).uniform(size=(8, 8, 8, 1)).astype(dtype)
        y = np.argmax(cnn(x), axis=-1)

        def rounded(x):
            return tf.stop_gradient(tf.round(cnn(x) * 1e3) / 1e3)

        attack = SPSA(epsilon=0.15, steps=15, samples=64)
        x_adv = attack(rounded, x, y)
        assert x_adv.dtype == dtype
        assert (np.argmax(cnn(x_adv), axis=-1) != y).mean() > 0.5
        delta = np.abs(x_adv.astype("float64") - x)
        assert delta.max() <= 0.15 + 1e-6
        np.testing.assert_array_equal(x_adv, attack(rounded, x, y))

    for dtype in ["float16", "float32"]:
        check(dtype)


@pytest.mark.slow
def test_region_and_seed():
    y, region = np.arange(9) % 2, np.arange(6) < 3
    attack = SPSA(epsilon=0.1, **SHARP)
    x_adv = attack(linear, X, y, region=region)
    best = X + 0.1 * np.sign(downhill(y)) * region
    np.testing.assert_allclose(x_adv, best, atol=1e-5)
    one, two = (
        SPSA(epsilon=0.1, steps=2, samples=2, early_stop=False, seed=seed)(linear, X, y)
        for seed in (0, 1)
    )
    assert (one != two).any()


@pytest.mark.slow
def test_inside_xla():
    """28 pairs of 18 examples at once: the last group is smaller, or as large."""

    def check(samples, options):
        y = np.arange(9) % 2
        attack = SPSA(epsilon=0.1, steps=5, samples=samples, **options)

        @tf.function(jit_compile=True)
        def step(x, targets):
            return attack.perturb(linear, x, targets, seed=tf.constant([0, 1]))

        x_adv = step(tf.constant(X), tf.one_hot(y, 2))
        np.testing.assert_allclose(x_adv, X + 0.1 * np.sign(downhill(y)), atol=1e-5)

    for samples in [1000, 1008]:
        for options in [{}, {"restarts": 2, "early_stop": False}]:
            check(samples, options)


def test_known_sizes_give_the_groups_of_unknown_ones():
    def check(count):
        def part(first, size):
            numbers = tf.range(first, first + size)
            return tf.reduce_sum(1 + numbers * numbers), tf.constant(1)

        like = (tf.constant(0), tf.constant(0))
        known = chunked_sum(count, 3, part, like)
        unknown = chunked_sum(tf.constant(count), tf.constant(3), part, like)
        expected = sum(1 + i * i for i in range(count)), -(-count // 3)
        assert tuple(map(int, known)) == tuple(map(int, unknown)) == expected

    for count in [0, 2, 6, 7]:
        check(count)


def test_counts_its_queries():
    per_example = []

    def counted(x):
        z = linear(x)
        tf.py_function(lambda n: per_example.append(int(n)), [tf.shape(x)[0]], [])
        return z

    attack = SPSA(epsilon=1e-3, steps=4, samples=10, early_stop=False)
    y = np.argmax(linear(X), axis=1)
    attack(counted, X, y)
    per_example.clear()
    attack(counted, X, y)
    # And at the end for those with an earlier success to beat: none, which is asked as
    # one row of zeros.
    assert sum(per_example) == len(X) * attack.passes + 1
    assert attack.passes == 44


def test_refused():
    with pytest.raises(ValueError, match="`samples` is odd: got 5"):
        SPSA(epsilon=0.1, samples=5)
    with pytest.raises(ValueError, match="`delta` is out of range"):
        SPSA(epsilon=0.1, delta=0.0)
    with pytest.raises(ValueError, match="Unknown `optimizer`: got 'sgd'"):
        SPSA(epsilon=0.1, optimizer="sgd")


RNG_NOISE = np.random.default_rng(21)


W_NOISE = RNG_NOISE.normal(size=(30, 3))


KINDS = [UniformNoise, GaussianNoise]


def network(x):
    return tf.tanh(tf.cast(x, tf.float32) @ tf.constant(W_NOISE, tf.float32))


def draw(attack, x, input_range=(-9.0, 9.0)):
    """Return one draw of a noise around `x`."""
    seed = tf.constant([0, 1])
    context = AttackContext(None, x, None, attack.epsilon, seed, attack.norm, input_range)
    return attack.draw(context, context.ball, seed)


def inputs(n, dtype="float32"):
    return RNG_NOISE.uniform(size=(n, 30)).astype(dtype)


def test_keeps_the_first_success_else_the_largest_loss():
    def check(kind):
        seen = []

        def witness(x):
            z = network(x)
            tf.py_function(lambda x, z: seen.append((x.numpy(), z.numpy())), [x, z], [])
            return z

        x = inputs(40)
        y = np.argmax(network(x), axis=1)
        attack = kind(epsilon=0.15, draws=20)
        attack(witness, x, y)
        seen.clear()
        x_adv = attack(witness, x, y)
        ways = {"first": 0, "largest": 0}
        for b in range(40):
            near = [
                (point, z)
                for points, logits in seen
                for point, z in zip(points, logits, strict=True)
                if np.abs(point - x[b]).max() <= 0.15 + 1e-6
            ]
            margins = np.array([np.delete(z, y[b]).max() - z[y[b]] for _, z in near])
            fooled = np.flatnonzero(margins > 0)
            kept = fooled[0] if len(fooled) else np.argmax(margins)
            np.testing.assert_array_equal(x_adv[b], near[kept][0])
            ways["first" if len(fooled) else "largest"] += 1
            assert len(fooled) or len(near) == 21
        assert min(ways.values()) > 0

    for kind in KINDS:
        check(kind)


def test_default_deviation_l1():
    noise = draw(GaussianNoise(2.0, norm="l1"), tf.zeros((50, 3000)))
    lengths = np.abs(noise).sum(axis=1) / 2.0
    # The deviation of |n| is sqrt(1 - 2 / pi) and its mean sqrt(2 / pi).
    error = np.sqrt((np.pi / 2 - 1) / 3000 / 50)
    assert abs(lengths.mean() - 1) < 5 * error


def test_default_deviation():
    """The noise is about as long as the radius."""
    for norm in ["linf", "l2"]:
        d, n = 3000, 50
        attack = GaussianNoise(epsilon=0.4, norm=norm)
        x = tf.zeros((n, d))
        noise = draw(attack, x)
        if norm == "l2":
            lengths = np.linalg.norm(noise, axis=1)
            assert abs(lengths.mean() - 0.4) < 5 * 0.4 / np.sqrt(2 * d * n) + 1e-4
        else:
            # The median of the largest of d: half of the batches stay below it. The
            # default is a bound of the expected maximum, a little above it.
            sigma = 0.4 / np.sqrt(2 * np.log(2 * d))
            median = sigma * NormalDist().inv_cdf((1 + 0.5 ** (1 / d)) / 2)
            assert 0.85 * 0.4 < median < 0.4
            below = (np.abs(noise).max(axis=1) < median).mean()
            assert abs(below - 0.5) < 5 * np.sqrt(0.25 / n)
        given = GaussianNoise(epsilon=0.4, norm=norm, sigma=0.03)
        noise = draw(given, x)
        spread = np.std(noise)
        assert abs(spread - 0.03) < 5 * 0.03 / np.sqrt(2 * n * d)


def test_uniform_fills_the_ball():
    x = np.full((4000, 1), 0.5, "float32")

    def never(x):
        return tf.concat([0 * x + 1, 0 * x], axis=1)

    # A constant loss: the first draw is no improvement, so nothing may move.
    np.testing.assert_array_equal(UniformNoise(epsilon=0.2)(never, x), x)
    drawn = draw(UniformNoise(epsilon=0.2), tf.constant(x), (0.0, 1.0))
    u = (drawn.numpy() - 0.5) / 0.2
    assert abs(u.mean()) < 5 * np.sqrt(1 / 3 / 4000)
    assert abs((u**2).mean() - 1 / 3) < 5 * np.sqrt(4 / 45 / 4000)


@pytest.mark.slow
def test_region_seeds_targets():
    for kind in KINDS:
        x, region = inputs(40), np.arange(30) < 10
        y = (np.argmax(network(x), axis=1) + 1) % 3
        attack = kind(epsilon=0.2, draws=30, targeted=True)
        x_adv = attack(network, x, y)
        reached = np.argmax(network(x_adv), axis=1) == y
        assert 0 < reached.mean() < 1
        np.testing.assert_array_equal(x_adv, attack(network, x, y))
        other = kind(epsilon=0.2, draws=30, targeted=True, seed=1)(network, x, y)
        assert (other != x_adv).any()
        x_adv = attack(network, x, y, region=region)
        assert (x_adv != x)[:, :10].any()
        np.testing.assert_array_equal(x_adv[:, 10:], x[:, 10:])


def test_names_and_settings():
    assert UniformNoise(epsilon=0.1).name == "uniform noise"
    assert GaussianNoise(epsilon=0.1).name == "Gaussian noise"
    assert UniformNoise(epsilon=0.1).passes == 101
    for settings in ({"draws": 0}, {"sigma": 0.0}):
        with pytest.raises(ValueError, match="out of range"):
            GaussianNoise(epsilon=0.1, **settings)


RNG_HOPSKIPJUMP = np.random.default_rng(31)


D = 36


W_HOPSKIPJUMP = RNG_HOPSKIPJUMP.normal(size=(D, 3)).astype("float32")


X_HOPSKIPJUMP = RNG_HOPSKIPJUMP.uniform(0.4, 0.6, (12, D)).astype("float32")


# The biases make all three classes common.
BIAS = -np.mean(X_HOPSKIPJUMP @ W_HOPSKIPJUMP, axis=0)


def linear_hopskipjump(x):
    flat = tf.reshape(tf.cast(x, tf.float32), [-1, D])
    return flat @ tf.constant(W_HOPSKIPJUMP) + tf.constant(BIAS)


def decided(x):
    """The decision alone, without any gradient."""
    return tf.stop_gradient(tf.one_hot(tf.argmax(linear_hopskipjump(x), axis=-1), 3))


def decisions(x):
    return np.argmax(linear_hopskipjump(x), axis=-1)


def exact(x, y, norm, free=slice(None)):
    """The distance to the nearest half space of another class; no range binds."""
    dual = 2 if norm == "l2" else 1
    z, result = linear_hopskipjump(x).numpy(), []
    for b in range(len(x)):
        ways = [
            (z[b, y[b]] - z[b, c])
            / np.linalg.norm((W_HOPSKIPJUMP[:, y[b]] - W_HOPSKIPJUMP[:, c])[free], dual)
            for c in range(3)
            if c != y[b]
        ]
        result.append(min(ways))
    return np.array(result)


def two(x):
    return linear_hopskipjump(x)[:, :2]


def lengths(a, b, norm):
    delta = (a.astype("float64") - b).reshape(len(a), -1)
    return np.linalg.norm(delta, 2 if norm == "l2" else np.inf, axis=1)


@pytest.mark.parametrize(
    ("norm", "within", "targeted"),
    [("l2", 0.03, True), ("linf", 0.1, False)],
)
def test_exact_distance_of_two_classes(norm, within, targeted):
    y = np.argmax(two(X_HOPSKIPJUMP), axis=1)
    attack = HopSkipJump(norm=norm, queries=4000, targeted=targeted)
    x_adv = attack(two, X_HOPSKIPJUMP, 1 - y if targeted else y)
    z = two(X_HOPSKIPJUMP).numpy()
    w = np.linalg.norm(W_HOPSKIPJUMP[:, 0] - W_HOPSKIPJUMP[:, 1], 2 if norm == "l2" else 1)
    ratio = lengths(x_adv, X_HOPSKIPJUMP, norm) / (np.abs(z[:, 0] - z[:, 1]) / w)
    assert (np.argmax(two(x_adv), axis=1) == 1 - y).all()
    assert ratio.min() > 1 - 1e-4
    assert ratio.max() < 1 + within
    assert np.median(ratio) < 1 + within / 2


@pytest.mark.slow
def test_decisions_are_enough():
    """Three classes: the boundary it starts at need not be the nearest one."""
    for norm in ["l2", "linf"]:
        attack, y = HopSkipJump(norm=norm, queries=1000), decisions(X_HOPSKIPJUMP)
        x_adv = attack(linear_hopskipjump, X_HOPSKIPJUMP, y)
        np.testing.assert_array_equal(attack(decided, X_HOPSKIPJUMP, y), x_adv)
        assert (decisions(x_adv) != y).all()
        ratio = lengths(x_adv, X_HOPSKIPJUMP, norm) / exact(X_HOPSKIPJUMP, y, norm)
        assert ratio.min() > 1 - 1e-4
        assert np.median(ratio) < 1.2
        # Misclassified already: nothing moves.
        np.testing.assert_array_equal(
            attack(linear_hopskipjump, X_HOPSKIPJUMP, (y + 1) % 3), X_HOPSKIPJUMP
        )
        if norm == "l2":
            other = HopSkipJump(norm=norm, queries=1000, seed=1)(
                linear_hopskipjump, X_HOPSKIPJUMP, y
            )
            assert (other != x_adv).any()


def test_targeted_starts_from_an_example_of_the_class():
    """The class to reach is a small corner that noise does not meet."""

    def corner(x):
        inside = tf.reduce_all(x > 0.9, axis=1)
        return tf.one_hot(tf.cast(inside, tf.int32), 2)

    x = np.full((3, D), 0.5, "float32")
    x[2] = 0.95
    attack = HopSkipJump(norm="linf", queries=300, targeted=True)
    x_adv = attack(corner, x, [1, 1, 1])
    assert (x_adv > 0.9).all()
    np.testing.assert_allclose(x_adv[:2], 0.9, atol=0.02)
    np.testing.assert_array_equal(x_adv[2], x[2])
    # Without such an example nothing is found: the inputs come back.
    with pytest.warns(RuntimeWarning, match=r"reach the classes \[1\]"):
        np.testing.assert_array_equal(attack(corner, x[:2], [1, 1]), x[:2])


def test_counts_its_queries_hopskipjump():
    per_example = []

    def counted(x):
        z = linear_hopskipjump(x)
        tf.py_function(lambda n: per_example.append(int(n)), [tf.shape(x)[0]], [])
        return z

    attack, y = HopSkipJump(queries=700), decisions(X_HOPSKIPJUMP)
    attack(counted, X_HOPSKIPJUMP, y)
    per_example.clear()
    attack(counted, X_HOPSKIPJUMP, y)
    # Every call asks about multiples of the examples still under attack.
    assert 0.8 * 700 < sum(per_example) / len(X_HOPSKIPJUMP) <= 700
    assert attack.passes == 700


@pytest.mark.slow
def test_radius():
    norm = "linf"
    y, free = decisions(X_HOPSKIPJUMP), HopSkipJump(norm=norm, queries=1500)
    closest = free(linear_hopskipjump, X_HOPSKIPJUMP)
    distance = lengths(closest, X_HOPSKIPJUMP, norm)
    epsilon = float(np.median(distance))
    x_adv = free.at(epsilon)(linear_hopskipjump, X_HOPSKIPJUMP)
    assert (lengths(x_adv, X_HOPSKIPJUMP, norm) <= epsilon + 1e-6).all()
    fooled = decisions(x_adv) != y
    assert fooled[distance < 0.97 * epsilon].all()
    assert not fooled[exact(X_HOPSKIPJUMP, y, norm) > epsilon].any()
    both = free(linear_hopskipjump, X_HOPSKIPJUMP, epsilons=[epsilon, np.inf])
    assert (lengths(both[0], X_HOPSKIPJUMP, norm) <= epsilon + 1e-6).all()
    np.testing.assert_array_equal(both[1], closest)


def test_region():
    x, region = X_HOPSKIPJUMP.reshape(-1, 6, 6, 1), np.zeros((6, 6))
    region[:3] = 1
    x_adv = HopSkipJump(queries=2000)(linear_hopskipjump, x, region=region)
    np.testing.assert_array_equal(x_adv[:, 3:], x[:, 3:])
    y = decisions(x)
    found = decisions(x_adv) != y
    assert found.mean() > 0.8
    # The exact distance when only the first half of the components may move.
    nearest = exact(x, y, "l2", free=slice(18))
    ratio = lengths(x_adv, x, "l2")[found] / nearest[found]
    assert ratio.min() > 1 - 1e-4
    assert np.median(ratio) < 1.05


def test_dtypes_and_range():
    def check(dtype, high):
        x = (high * X_HOPSKIPJUMP).astype(dtype)

        def model(x):
            return linear_hopskipjump(tf.cast(x, tf.float32) / high)

        x_adv = HopSkipJump(queries=600, input_range=(0, high))(model, x)
        assert x_adv.dtype == dtype
        small, near = (t.astype("float64") / high for t in (x, x_adv))
        y = decisions(small)
        assert (decisions(near) != y).all()
        assert near.min() >= 0
        assert near.max() <= 1
        assert np.median(lengths(near, small, "l2") / exact(small, y, "l2")) < 1.2

    for dtype, high in [("float64", 255)]:
        check(dtype, high)


# ---- parts


def test_bisection_halves_the_doubt():
    def check(norm):
        origin = tf.constant(RNG_HOPSKIPJUMP.uniform(size=(50, 5)))
        x = tf.constant(RNG_HOPSKIPJUMP.uniform(size=(50, 5)))
        share = tf.constant(RNG_HOPSKIPJUMP.uniform(0.05, 0.95, 50))
        delta = x - origin
        order = 2 if norm == "l2" else np.inf
        reach = np.linalg.norm(delta, order, axis=1)

        def decide(points):
            lengths = tf.norm(points - origin, order, axis=1)
            return lengths > share * reach

        y = bisect(decide, origin, x, norm=norm, passes=12).numpy()
        assert decide(tf.constant(y)).numpy().all()
        lengths = np.linalg.norm(y - origin, order, axis=1) / reach
        assert (lengths - share.numpy() <= 2.0**-12 + 1e-12).all()
        if norm == "l2":
            cosine = np.sum((y - origin) * delta, 1) / np.linalg.norm(y - origin, axis=1)
            np.testing.assert_allclose(cosine / np.linalg.norm(delta, axis=1), 1)
        else:
            radius = (lengths * reach)[:, None]
            clipped = np.clip(x, origin - radius, origin + radius)
            np.testing.assert_allclose(y, clipped)

    for norm in ["l2", "linf"]:
        check(norm)


def test_estimated_normal_of_a_plane():
    """Independent errors: the angle shrinks with the root of the number of draws."""

    def check(norm):
        w = RNG_HOPSKIPJUMP.normal(size=8)
        w /= np.linalg.norm(w)
        x = tf.zeros((200, 8), tf.float64)

        def ask(points):
            return tf.linalg.matvec(points, w) > 0, points

        @tf.function(autograph=False)
        def estimate(count):
            radius = tf.fill([200], tf.constant(0.1, tf.float64))
            seed = tf.constant([1, 2])
            return decision_gradient(ask, x, radius=radius, count=count, norm=norm, seed=seed)

        def cosine(count):
            v = estimate(tf.constant(count)).numpy()
            return v @ w / np.linalg.norm(v, axis=1)

        few, many = (np.mean(1 - cosine(count)) for count in (100, 1600))
        assert many < 0.02
        # Sixteen times the draws, a sixteenth of the squared angle.
        assert few / many == pytest.approx(16, rel=0.25)

    for norm in ["l2", "linf"]:
        check(norm)


def test_normal_where_all_agree():
    x = tf.zeros((2, 3), tf.float64)
    sides = tf.constant([True, False])

    def ask(points):
        fools = tf.tile(sides, [tf.shape(points)[0] // 2])
        return fools, tf.maximum(points, 0.0)

    v = decision_gradient(
        ask,
        x,
        radius=tf.ones(2, tf.float64),
        count=tf.constant(500),
        norm="l2",
        seed=tf.constant([1, 2]),
    )
    assert (v[0] > 0).numpy().all()
    assert (v[1] < 0).numpy().all()


def test_draws_are_all_counted():
    seen = []

    def draw(first, size):
        seen.append((int(first), int(size)))
        return tf.cast(size, tf.float64)

    zero = tf.zeros((), tf.float64)
    total = chunked_sum(1000, draws_at_once(tf.constant(100)), draw, zero)
    assert float(total) == 1000
    assert seen[0] == (0, 5)
    assert sum(size for _, size in seen) == 1000
    assert float(chunked_sum(3, draws_at_once(tf.constant(0)), draw, zero)) == 3


def test_step_is_halved_until_it_fools():
    x, way = tf.zeros((3, 1)), tf.constant([[1.0], [-1.0], [1.0]])

    def decide(points):
        return (tf.abs(points[:, 0]) < 0.3) & (tf.range(3) < 2) & (points[:, 0] != 0)

    y, asked = geometric_step_search(
        decide, x, way, tf.constant([1.0, 0.1, 1.0]), input_range=(-2, 2), halvings=6
    )
    np.testing.assert_allclose(y[:, 0], [0.25, -0.1, 0.0])
    assert int(asked) == 6


def test_nearest_other_example():
    x = RNG_HOPSKIPJUMP.uniform(size=(20, 3)).astype("float32")
    classes, y = RNG_HOPSKIPJUMP.integers(0, 3, 20), RNG_HOPSKIPJUMP.integers(0, 4, 20)
    for targeted in (False, True):
        chosen, there = other_examples(
            tf.constant(x),
            tf.constant(x),
            tf.constant(classes),
            tf.constant(y),
            targeted=targeted,
        )
        for b in range(20):
            fits = np.flatnonzero((classes == y[b]) == targeted)
            assert there[b].numpy() == (len(fits) > 0)
            if len(fits):
                nearest = fits[np.argmin(np.linalg.norm(x[fits] - x[b], axis=1))]
                np.testing.assert_array_equal(chosen[b], x[nearest])


def test_refused_hopskipjump():
    with pytest.raises(ValueError, match="Unknown `norm`: got 'l1'"):
        HopSkipJump(norm="l1")
    with pytest.raises(ValueError, match="`queries` is out of range"):
        HopSkipJump(queries=10)
