"""The Square attack: its moves in NumPy, its optimum, and what it never does."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import AttackContext, Square
from keras_jsigr.attacks.losses import attack_loss
from keras_jsigr.attacks.square import (
    Windows,
    bump,
    dipole,
    dipole_table,
    offsets,
    paint,
    place_windows,
    place_windows_at,
    stage,
    stripes,
    tiles,
    transfer_mass,
    window_sides,
)

RNG = np.random.default_rng(11)


# ---- schedule and windows


def paper_fraction(query, queries, p_init):
    """The schedule as the authors tabulate it for 10,000 queries."""
    query = query * 10000 // queries
    for limit, divisor in [
        (10, 1),
        (50, 2),
        (200, 4),
        (500, 8),
        (1000, 16),
        (2000, 32),
        (4000, 64),
        (6000, 128),
        (8000, 256),
    ]:
        if query <= limit:
            return p_init / divisor
    return p_init / 512


def test_schedule():
    for queries in [7, 1000, 5000, 300_000]:
        numbers = np.unique(np.linspace(0, queries - 1, 999).astype("int32"))
        ours = 0.8 / 2.0 ** stage(tf.constant(numbers), queries).numpy()
        theirs = [paper_fraction(int(number), queries, 0.8) for number in numbers]
        np.testing.assert_allclose(ours, theirs)


def test_sides():
    assert window_sides(0.8, (32, 32)) == (29, 29)
    assert window_sides(1e-9, (32, 32)) == (1, 1)
    assert window_sides(1.0, (20, 30)) == (20, 30)
    assert window_sides(0.5, (4, 100)) == (4, 50)
    assert window_sides(0.01, (100, 4)) == (2, 2)
    assert window_sides(0.01, (1, 1), odd=True) == (1, 1)
    assert window_sides(0.05, (28, 28), odd=True) == (7, 7)


def test_all_places_are_equally_likely():
    u = tf.constant(RNG.uniform(size=(9000, 2)), tf.float32)
    corners = place_windows(u, tf.constant([3, 2]), (5, 4)).numpy()
    counts = np.zeros((3, 3))
    np.add.at(counts, tuple(corners.T), 1)
    # Nine cells of probability 1/9 each, within five standard errors.
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000 * 8 / 9)


def test_offsets_in_numpy():
    corners, sides = np.int32([[0, 2], [3, 1]]), np.int32([2, 3])
    inside, rows, columns = offsets(tf.constant(corners), tf.constant(sides), (5, 6))
    for b, (row, column) in enumerate(corners):
        expected = np.zeros((5, 6), bool)
        expected[row : row + 2, column : column + 3] = True
        np.testing.assert_array_equal(inside[b], expected)
        assert rows[b, row, 0] == 0
        assert columns[b, 0, column] == 0


def test_windows_hold_a_pixel_of_the_region():
    free = np.zeros((500, 6, 7))
    where = RNG.integers(0, 6, (500, 2))
    free[np.arange(500), where[:, 0], where[:, 1]] = 1
    u = tf.constant(RNG.uniform(size=(500, 4)), tf.float32)
    weights = tf.constant(free.reshape(500, -1), tf.float32)
    for side in (1, 3, 6):
        sides = tf.constant([side, side])
        corners = place_windows_at(u, weights, sides, (6, 7))
        assert (corners.numpy() >= 0).all()
        assert (corners.numpy() + side <= [6, 7]).all()
        inside, _, _ = offsets(corners, sides, (6, 7))
        assert (inside.numpy() & (free > 0)).any(axis=(1, 2)).all()


# ---- moves


def box(shape):
    x = RNG.uniform(0, 1, shape)
    return np.maximum(x - 0.2, 0), x, np.minimum(x + 0.2, 1)


def test_stripes_in_numpy():
    lower, _, upper = box((3, 4, 5, 2))
    u = RNG.uniform(size=(3, 5, 2))
    expected = np.where(u[:, None] >= 0.5, upper, lower)
    np.testing.assert_array_equal(stripes(*map(tf.constant, (u, lower, upper))), expected)


def test_one_window_in_numpy():
    lower, x, upper = box((4, 5, 6, 3))
    corners, side = np.int32([[0, 0], [2, 3], [1, 1], [2, 0]]), 3
    u = RNG.uniform(size=(4, 7))
    inside, _, _ = offsets(tf.constant(corners), tf.constant([side, side]), (5, 6))
    new = paint(*map(tf.constant, (x, lower, upper)), inside, tf.constant(u)).numpy()
    expected = x.copy()
    for b, (row, column) in enumerate(corners):
        window = np.s_[b, row : row + side, column : column + side]
        signs = np.where(u[b, :3] >= 0.5, 1.0, -1.0)
        # The paper's form: add twice the radius, project onto ball and range.
        expected[window] = np.clip(expected[window] + 2 * 0.2 * signs, lower[window], upper[window])
    np.testing.assert_allclose(new, expected)


def test_a_window_that_changes_nothing_is_recoloured():
    lower, _, upper = box((200, 4, 4, 2))
    inside, _, _ = offsets(tf.fill((200, 2), 1), tf.constant([2, 2]), (4, 4))
    u = tf.constant(RNG.uniform(size=(200, 5)))
    full = tf.fill((200, 4, 4), True)
    x = paint(tf.constant(lower), lower, upper, full, u)
    again = paint(x, lower, upper, inside, u)
    changed = (again != x).numpy()
    assert changed.any(axis=(1, 2, 3)).all()
    assert not changed[:, 0].any()


def growing_boxes(height, width, power):
    """The hill as a sum of boxes that grow from the centre, as AutoAttack's code has it."""
    hill = np.zeros((height, width))
    for k in range(max(height, width) // 2 + 1):
        rows = np.s_[max(height // 2 - k, 0) : height // 2 + k + 1]
        columns = np.s_[max(width // 2 - k, 0) : width // 2 + k + 1]
        hill[rows, columns] += 1 / (k + 1) ** {1: 4, 2: 2}[power]
    return hill


def test_bumps():
    for power in [1, 2]:
        for height, width in [(1, 1), (3, 3), (2, 7), (5, 3), (4, 9)]:
            hill = growing_boxes(height, width, power)
            np.testing.assert_allclose(bump(height, width, power), hill)
            if height > 1:
                sides = height // 2, height - height // 2
                halves = [growing_boxes(side, width, power) for side in sides]
                hill, valley = (half / np.linalg.norm(half.ravel(), power) for half in halves)
                expected = np.concatenate([hill, -valley]) / 2 ** (1 / power)
                np.testing.assert_allclose(dipole(height, width, power), expected)
            across = dipole(height, width, power, across=True)
            assert np.linalg.norm(across.ravel(), power) == pytest.approx(1)


def test_tiles():
    for extent, power in [((28, 28), 1), ((28, 28), 2), ((8, 8), 1), ((3, 1), 2), ((14, 33), 2)]:
        above, beside, number = tiles(extent, power)
        assert above.shape == beside.shape == number.shape == extent
        assert ((above != 0) == (number >= 0)).all()
        for tile in range(number.max() + 1):
            assert np.linalg.norm(above[number == tile], power) == pytest.approx(1)
            assert np.linalg.norm(beside[number == tile], power) == pytest.approx(1)


def numpy_carry(delta, shape, first, second, signs, epsilon, p):
    """Algorithm 3 of the paper for one image, channel by channel."""
    result, channels = delta.copy(), delta.shape[-1]
    unused = max(epsilon**p - (np.abs(delta) ** p).sum(), 0) / channels
    result[second] = 0
    for c in range(channels):
        both = (np.abs(delta[first | second, c]) ** p).sum()
        old = delta[first, c]
        if old.any():
            old = old / np.linalg.norm(old, p)
        new = signs[c] * shape[first] / np.linalg.norm(shape[first], p) + old
        result[first, c] = new / np.linalg.norm(new, p) * (both + unused) ** (1 / p)
    return result


def test_one_carry_in_numpy():
    for p in [1, 2]:
        extent, sides, epsilon = (6, 7), (3, 3), 2.0
        delta = RNG.normal(size=(5, *extent, 2))
        delta[1:] *= 1.5 / np.linalg.norm(delta[1:].reshape(4, -1), p, 1)[:, None, None, None]
        delta[2, :3, :3] = 0
        corners = np.int32([[0, 0], [2, 3], [0, 0], [1, 1], [3, 4]])
        others = np.int32([[3, 3], [1, 2], [3, 3], [1, 1], [0, 0]])
        signs = np.where(RNG.uniform(size=(5, 2)) < 0.5, 1.0, -1.0)
        inside, rows, columns = offsets(tf.constant(corners), tf.constant(sides), extent)
        other, _, _ = offsets(tf.constant(others), tf.constant(sides), extent)
        shape = np.zeros((5, *extent))
        for b, (row, column) in enumerate(corners):
            shape[b, row : row + 3, column : column + 3] = dipole(*sides)
        looked_up = tf.gather(
            dipole_table([sides], extent)[0], tf.where(inside, rows * 7 + columns, 84)
        )
        np.testing.assert_allclose(looked_up, shape)
        new = transfer_mass(
            tf.constant(delta),
            tf.constant(shape),
            inside[..., None],
            other[..., None],
            tf.constant(signs),
            epsilon=epsilon,
            power=p,
        ).numpy()
        for b in range(5):
            expected = numpy_carry(
                delta[b],
                shape[b],
                inside.numpy()[b],
                other.numpy()[b],
                signs[b],
                epsilon,
                p,
            )
            np.testing.assert_allclose(new[b], expected, atol=1e-12)
        # From inside the ball onto its surface.
        lengths = np.linalg.norm(new[1:].reshape(4, -1), p, axis=1)
        np.testing.assert_allclose(lengths, epsilon)


# ---- the attack

W = RNG.normal(size=(16, 2)).astype("float32")


def linear(x):
    """Two classes; the first wins by far, everywhere."""
    z = tf.reshape(tf.cast(x, tf.float32), [-1, 16]) @ W
    return z + tf.constant([[50.0, -50.0]])


def inputs(n, *shape):
    return np.random.default_rng(12).uniform(size=(n, *shape)).astype("float32")


def test_linf_reaches_the_optimum():
    for shape in [(4, 4, 1), (8, 2), (16,)]:
        x = inputs(5, *shape)
        x_adv = Square(epsilon=0.2, queries=1500)(linear, x, np.zeros(5, int))
        uphill = np.sign(W[:, 1] - W[:, 0]).reshape(shape)
        np.testing.assert_allclose(x_adv, np.clip(x + 0.2 * uphill, 0, 1), atol=1e-4)


def numpy_square(x, epsilon, queries, rng):
    """The L2 attack of the paper on one image of the linear model, as plain loops."""
    height, width, channels = x.shape
    w = (W[:, 1] - W[:, 0]).reshape(x.shape)

    def project(delta):
        delta = delta * min(1, epsilon / np.linalg.norm(delta))
        return np.clip(x + delta, 0, 1)

    above, _, number = tiles((height, width))
    delta = np.zeros_like(x)
    for tile in range(number.max() + 1):
        shape = np.where(number == tile, rng.choice([-1, 1]) * above, 0)
        delta += shape[..., None] * np.ones(channels)
    best = project(1e9 * delta)
    for query in range(queries - 2):
        fraction = paper_fraction(query, queries, 0.8)
        side = round(np.sqrt(fraction * height * width))
        side = min(max(side + (side % 2 == 0), 3), height)
        first, second = np.zeros((2, height, width), bool)
        row, column = rng.integers(0, [height - side + 1, width - side + 1])
        first[row : row + side, column : column + side] = True
        shape = np.zeros((height, width))
        shape[first] = dipole(side, side, across=rng.uniform() < 0.5).ravel()
        row, column = rng.integers(0, [height - side + 1, width - side + 1])
        second[row : row + side, column : column + side] = True
        signs = rng.choice([-1.0, 1.0], channels)
        delta = numpy_carry(best - x, shape, first, second, signs, epsilon, 2)
        new = project(delta)
        best = new if (new * w).sum() > (best * w).sum() else best
    return (best * w).sum()


@pytest.mark.slow
def test_l2_is_as_strong_as_plain_loops():
    """A different random stream: equal means within their standard errors."""
    x, epsilon, n = inputs(1, 4, 4, 1)[0], 0.6, 150
    many = np.broadcast_to(x, (n, 4, 4, 1))
    attack = Square(epsilon=epsilon, norm="l2", queries=150, batch_size=n)
    x_adv = attack(linear, many.copy(), np.zeros(n, int))
    ours = x_adv.reshape(n, 16) @ (W[:, 1] - W[:, 0])
    rng = np.random.default_rng(13)
    theirs = np.array([numpy_square(x, epsilon, 150, rng) for _ in range(n)])
    error = np.sqrt((ours.var() + theirs.var()) / n)
    assert abs(ours.mean() - theirs.mean()) < 4 * error
    # The comparison is sharp, and the attack gets somewhere.
    clean = x.ravel() @ (W[:, 1] - W[:, 0])
    assert error < 0.02 * (ours.mean() - clean)


def test_inside():
    for norm, epsilon, dtype, high in [
        ("linf", 0.1, "float32", 255.0),
        ("l2", 0.7, "float64", 1.0),
    ]:
        x = (high * inputs(6, 4, 4, 1)).astype(dtype)
        x[:2] = np.round(x[:2] / high) * high
        settings = {"epsilon": epsilon * high, "norm": norm, "input_range": (0, high)}
        x_adv = Square(queries=40, **settings)(linear, x, np.zeros(6, int))
        assert x_adv.dtype == dtype
        delta = (x_adv.astype("float64") - x).reshape(6, -1)
        lengths = np.linalg.norm(delta, np.inf if norm == "linf" else 2, axis=1)
        assert (lengths <= epsilon * high + 1e-6).all()
        assert (lengths > 0.4 * epsilon * high).all()
        assert x_adv.min() >= 0
        assert x_adv.max() <= high


@pytest.mark.slow
def test_l1():
    x, epsilon = inputs(6, 4, 4, 1), 1.5
    w, gained = W[:, 1] - W[:, 0], []
    for queries in (2, 300):
        attack = Square(epsilon=epsilon, norm="l1", queries=queries)
        delta = (attack(linear, x, np.zeros(6, int)) - x).reshape(6, 16)
        gained.append(delta @ w)
        lengths = np.abs(delta).sum(axis=1)
        assert (lengths <= epsilon + 1e-6).all()
    assert (lengths > 0.5 * epsilon).all()
    assert (gained[0] >= 0).all()
    assert (gained[1] > gained[0] + 0.5).all()


W1, W2 = RNG.normal(size=(64, 12)) / 4, RNG.normal(size=(12, 5))


def network(x):
    """Five classes and bent boundaries, cheaper to trace than a Keras model."""
    flat = tf.reshape(tf.cast(x, tf.float32), [-1, 64])
    return tf.tanh((flat - 0.5) @ tf.constant(W1, tf.float32)) @ tf.constant(W2, tf.float32)


def decisions(x):
    return np.argmax(network(x), axis=-1)


def strength(x, y):
    return attack_loss(network(x), tf.one_hot(y, 5), "margin").numpy()


def test_more_queries_are_stronger():
    for norm, epsilon in [("l2", 0.4)]:
        x = inputs(40, 8, 8, 1)
        y = decisions(x)
        values = [strength(x, y)]
        for queries in (2, 80):
            x_adv = Square(epsilon=epsilon, norm=norm, queries=queries)(network, x)
            values.append(strength(x_adv, y))
        clean, first, last = values
        assert (first >= clean).all()
        assert (last >= clean).all()
        assert (clean <= 0).all()
        # The first windows grow from the same stripes.
        assert (last >= first)[first <= 0].all()
        assert 0 < (first > 0).sum() < (last > 0).sum() < 40


def test_never_accepts_a_worse_point():
    """The loss of the accepted points, as the model itself witnesses them."""
    seen = []

    def witness(x):
        z = linear(x)
        tf.py_function(lambda z: seen.append(z.numpy()), [z[:, 1] - z[:, 0]], [])
        return z

    x = inputs(3, 4, 4, 1)
    x_adv = Square(epsilon=0.2, queries=50)(witness, x, np.zeros(3, int))
    losses = np.stack(seen[-50:])
    end = linear(x_adv)
    np.testing.assert_allclose(end[:, 1] - end[:, 0], losses.max(axis=0), atol=1e-5)


def test_counts_its_queries():
    calls = []

    def counted(x):
        z = linear(x)
        tf.py_function(lambda n: calls.append(int(n)), [tf.shape(x)[0]], [])
        return z

    x = inputs(3, 4, 4, 1)
    attack = Square(epsilon=0.2, queries=30, restarts=2)
    attack(counted, x, np.zeros(3, int))
    # Probes and tracing ask too: compare two calls of the compiled program.
    calls.clear()
    attack(counted, x, np.zeros(3, int))
    assert attack.passes == 60
    assert 58 <= len(calls) <= 60
    assert set(calls) == {3}


def test_examples_that_are_done_are_left_alone():
    x = inputs(24, 8, 8, 1)
    own = decisions(x)
    y = np.where(np.arange(24) < 8, (own + 1) % 5, own)
    rows = []

    def counted(x):
        z = network(x)
        tf.py_function(lambda n: rows.append(int(n)), [tf.shape(x)[0]], [])
        return z

    attack = Square(epsilon=0.04, queries=60)
    attack(counted, x, y)
    rows.clear()
    x_adv = attack(counted, x, y)
    np.testing.assert_array_equal(x_adv[:8], x[:8])
    # The inputs, the stripes, then those that still resist: fewer and fewer.
    assert rows[:2] == [24, 24]
    assert rows[2] <= 16
    assert rows[2:] == sorted(rows[2:], reverse=True)
    resist = (strength(x_adv, y) <= 0).sum()
    assert 0 < resist <= rows[-1] < rows[2]
    # What an example gets does not depend on what the others do.
    other = attack(network, x, np.where(np.arange(24) < 12, own, (own + 1) % 5))
    np.testing.assert_array_equal(other[8:12], x_adv[8:12])


def test_seeds_and_restarts():
    x = inputs(30, 8, 8, 1)
    y = decisions(x)

    settings = {"epsilon": 0.04, "queries": 12}
    first = Square(**settings)(network, x, y)
    np.testing.assert_array_equal(first, Square(**settings)(network, x, y))
    # Another seed, and restarts, the first of which is the run above.
    again = Square(restarts=4, **settings)(network, x, y)
    assert np.abs(first - again).max() > 0.01
    before, after = strength(first, y), strength(again, y)
    assert ((before > 0) <= (after > 0)).all()
    assert (after >= before)[(before > 0) == (after > 0)].all()
    assert (after > before).any()


def test_region():
    for norm in ["linf"]:
        x, region = inputs(5, 4, 4, 1), np.zeros((4, 4))
        region[1:3, 2:] = 1
        attack = Square(epsilon=0.2, norm=norm, queries=200)
        x_adv = attack(linear, x, np.zeros(5, int), region=region)
        moved = (x_adv != x)[..., 0]
        assert not moved[:, region == 0].any()
        if norm == "linf":
            uphill = np.sign(W[:, 1] - W[:, 0]).reshape(4, 4, 1) * region[..., None]
            np.testing.assert_allclose(x_adv, np.clip(x + 0.2 * uphill, 0, 1), atol=1e-4)
        else:
            assert moved.any(axis=(1, 2)).all()


def test_a_keras_model_without_gradient(cnn):
    x = inputs(8, 8, 8, 1)
    y = np.argmax(cnn(x), axis=-1)

    def rounded(x):
        return tf.stop_gradient(tf.round(cnn(x) * 20) / 20)

    x_adv = Square(epsilon=0.15, queries=200)(rounded, x, y)
    assert (np.argmax(cnn(x_adv), axis=-1) != y).mean() > 0.5


def test_windows_of_one_example_do_not_depend_on_the_rows():
    x, seed = tf.zeros((6, 5, 5, 1)), [0, 0]
    context = AttackContext(None, x, tf.zeros((6, 2)), 0.1, seed)
    windows = Windows(Square(), context, seed, odd=False)
    whole = windows.draw(tf.constant(3), tf.range(6), 4)
    part = windows.draw(tf.constant(3), tf.constant([1, 4]), 4)
    np.testing.assert_array_equal(part, whole.numpy()[[1, 4]])


def test_refused():
    for settings in ({"p_init": 0.0}, {"p_init": 1.5}):
        with pytest.raises(ValueError, match="`p_init` is out of range"):
            Square(epsilon=0.1, **settings)
    with pytest.raises(ValueError, match="`queries` is out of range"):
        Square(epsilon=0.1, queries=1)
    with pytest.raises(ValueError, match="`restarts`"):
        Square(epsilon=0.1, restarts=0)
    volume = np.full((2, 4, 2, 2, 1), 0.5, "float32")
    with pytest.raises(ValueError, match=r"got examples of shape \(4, 2, 2, 1\)"):
        Square(epsilon=0.1)(linear, volume, [0, 0])
