"""The saliency attack: the class stays, the map moves."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr import gradient_map
from keras_jsigr.attacks import (
    FGSM,
    PGD,
    VMIFGSM,
    AttackContext,
    Patch,
    SaliencyAttack,
    SmoothSecondOrder,
    salient_region,
)
from keras_jsigr.attacks.base import check_region
from keras_jsigr.attacks.patch import best_corner, random_corner
from keras_jsigr.attacks.saliency_attack import flat_map, mass_share, odds_gradient
from keras_jsigr.saliency import gradient_map as gradient_map_regions
from keras_jsigr.saliency import perturbation_map

TOP = 0.1


def build(activation):
    dense = keras.layers.Dense
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            dense(24, activation=activation),
            dense(24, activation=activation),
            dense(3),
        ]
    )


@pytest.fixture(scope="module")
def smooth():
    """A network that tells three bars on noise apart, and images of 8 x 8 pixels."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(16)
    y = rng.integers(0, 3, 300)
    x = rng.uniform(0.2, 0.6, (300, 8, 8, 1))
    for number, label in enumerate(y):
        x[number, 2 * label + 1 : 2 * label + 3, 2:6] += 0.3
    x = x.astype("float32")
    net = build("silu")
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(net.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            z = net(x)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, z)
        gradients = tape.gradient(loss, net.trainable_variables)
        optimizer.apply_gradients(zip(gradients, net.trainable_variables, strict=True))

    for _ in range(60):
        step()
    assert (np.argmax(net(x), axis=1) == y).mean() > 0.95
    return net, x[:20]


def top(maps):
    flat = np.reshape(maps, (len(maps), -1))
    count = round(TOP * flat.shape[1])
    order = np.argsort(-flat, axis=1, kind="stable")[:, :count]
    return [set(row) for row in order]


def explain(net, x):
    """The map of the log odds: that of the log probability but for its scale."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = net(x)
        decided = tf.one_hot(tf.argmax(z, 1), 3)
        others = tf.reduce_logsumexp(z - 1e9 * decided, axis=1)
        odds = tf.reduce_sum(decided * z, axis=1) - others
    return np.abs(tape.gradient(odds, x)).sum(axis=3)


def intersection(net, x, x_adv):
    """The share of the top pixels that both maps have in common, per example."""
    a, b = top(explain(net, x)), top(explain(net, x_adv))
    return np.array([len(s & t) / len(s) for s, t in zip(a, b, strict=True)])


def mass(net, x, x_adv):
    maps = np.reshape(explain(net, x_adv), (len(x), -1))
    pixels = top(explain(net, x))
    inside = [m[list(p)].sum() for m, p in zip(maps, pixels, strict=True)]
    return np.array(inside) / maps.sum(axis=1)


def test_the_map_moves_and_the_class_stays(smooth):
    for norm, epsilon in [("linf", 0.1), ("l2", 0.8)]:
        net, x = smooth
        x_adv = SaliencyAttack(epsilon=epsilon, norm=norm, top=TOP)(net, x)
        np.testing.assert_array_equal(np.argmax(net(x_adv), 1), np.argmax(net(x), 1))
        delta = (x_adv - x).reshape(20, -1)
        size = np.linalg.norm(delta, np.inf if norm == "linf" else 2, axis=1)
        assert size.max() <= epsilon + 1e-6
        assert x_adv.min() >= 0.0
        assert x_adv.max() <= 1.0
        noise = np.random.default_rng(0).normal(size=x.shape).astype("float32")
        noise = 0.1 * np.sign(noise)
        if norm == "l2":
            noise *= epsilon / np.linalg.norm(noise.reshape(20, -1), axis=1)[0]
        before, after = mass(net, x, x), mass(net, x, x_adv)
        assert (after <= before + 1e-5).all()
        moved, moved_by_noise = before - after, np.abs(before - mass(net, x, x + noise))
        assert moved.mean() > 3 * moved_by_noise.mean()
        kept, by_chance = intersection(net, x, x_adv), intersection(net, x, x + noise)
        assert kept.mean() < by_chance.mean() - 0.2


def test_maps_are_those_of_gradient_map(smooth):
    net, x = smooth
    z = tf.constant(net(x))
    rows = tf.one_hot(tf.argmax(z, 1), 3)
    context = AttackContext(net, tf.constant(x), rows, 0.1, None)
    ours = flat_map(odds_gradient(context, context.x)[0]).numpy()
    theirs = gradient_map(net, x, score="margin").reshape(20, 64)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(explain(net, x).reshape(20, 64), theirs, atol=1e-5)


def test_deterministic_in_one_trace_and_at_any_radius(smooth):
    net, x = smooth
    runs = []

    def model(x):
        runs.append(1)
        return net(x)

    attack = SaliencyAttack(epsilon=0.1, steps=10, top=TOP)
    first = attack(model, x)
    count = len(runs)
    np.testing.assert_array_equal(attack(model, x), first)
    small, large = attack(model, x[:7], epsilons=[0.02, 0.1])
    assert len(runs) == count
    np.testing.assert_allclose(large, first[:7], atol=1e-5)
    assert mass(net, x[:7], large).mean() < mass(net, x[:7], small).mean()
    # The class explained is the model's own, whatever the labels.
    wrong = (np.argmax(net(x), 1) + 1) % 3
    np.testing.assert_array_equal(attack(model, x, wrong), first)


@pytest.mark.slow
def test_region(smooth):
    net, x = smooth
    region = np.zeros((8, 8))
    region[:, :4] = 1
    x_adv = SaliencyAttack(epsilon=0.2, steps=10, top=TOP)(net, x, region=region)
    np.testing.assert_array_equal(x_adv[:, :, 4:], x[:, :, 4:])
    assert (x_adv[:, :, :4] != x[:, :, :4]).any()
    # The mass is that of the whole map.
    assert (mass(net, x, x_adv) <= mass(net, x, x) + 1e-5).all()
    assert mass(net, x, x_adv).mean() < mass(net, x, x).mean() - 0.01


def test_relu_by_borrowed_curvature(smooth):
    stand_in, x = smooth
    net = build("relu")
    net.set_weights(stand_in.get_weights())
    attack = SaliencyAttack(epsilon=0.1, top=TOP, steps=20)
    x_adv = attack(SmoothSecondOrder(net, stand_in), x)
    np.testing.assert_array_equal(np.argmax(net(x_adv), 1), np.argmax(net(x), 1))
    # Judged on the ReLU network itself.
    assert (mass(net, x, x_adv) <= mass(net, x, x) + 1e-5).all()
    assert mass(net, x, x_adv).mean() < 0.9 * mass(net, x, x).mean()


@pytest.mark.slow
def test_borrowed_curvature(make_cnn):
    model, other = make_cnn(0, activation="softmax"), make_cnn(1)
    logits = make_cnn(0)
    x = tf.constant(np.random.default_rng(2).uniform(size=(3, 8, 8, 1)), tf.float32)

    def derivatives(f):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                z = f(x)
                first_logit = z[:, 0]
            first = inner.gradient(first_logit, x)
            total = tf.reduce_sum(first**2) / 2
        # The derivative of half the square is curvature times slope.
        return z, first, outer.gradient(total, x)

    borrowed = SmoothSecondOrder(model, other)
    z, first, second = tf.function(lambda: derivatives(borrowed))()
    real, real_first, _ = derivatives(logits)
    np.testing.assert_allclose(z, real, atol=1e-5)
    np.testing.assert_allclose(first, real_first, atol=1e-6)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            value = other(x)[:, 0]
        product = tf.reduce_sum(inner.gradient(value, x) * real_first)
    np.testing.assert_allclose(second, outer.gradient(product, x), atol=1e-6)


def test_mass_and_its_derivative():
    rng = np.random.default_rng(3)
    maps, pixels = rng.uniform(size=(4, 9)), rng.uniform(size=(4, 9)) < 0.4
    expected = (maps * pixels).sum(1) / maps.sum(1)
    for scale in (1.0, 1e-25, 1e25):
        result = mass_share(tf.constant(scale * maps), tf.constant(pixels))
        np.testing.assert_allclose(result, expected, rtol=1e-9)
    zero = mass_share(tf.zeros((1, 4)), tf.constant([[True, False, False, False]]))
    assert zero.numpy().tolist() == [1.0]
    point = tf.constant(1e-25 * maps)
    with tf.GradientTape() as tape:
        tape.watch(point)
        share = mass_share(point, tf.constant(pixels))
    gradient = tape.gradient(share, point).numpy() * 1e-25
    total = maps.sum(1, keepdims=True)
    np.testing.assert_allclose(
        gradient, (pixels - expected[:, None]) / total, rtol=1e-9, atol=1e-12
    )
    colours = rng.normal(size=(2, 3, 4, 5))
    expected = np.abs(colours).sum(3).reshape(2, 12)
    np.testing.assert_allclose(flat_map(tf.constant(colours)), expected)


def test_map_of_a_sure_model(cnn):
    """The gradient of the log probability vanishes; that of the log odds does not."""
    x = tf.constant(np.random.default_rng(4).uniform(size=(3, 8, 8, 1)), tf.float32)
    rows = tf.one_hot(tf.argmax(cnn(x), axis=1), 5)
    context = AttackContext(lambda x: 1e4 * cnn(x), x, rows, 0.1, None)
    gradient, _ = odds_gradient(context, x)
    assert (np.abs(gradient[:, :7, :7]) > 0).all()


def test_no_second_derivative():
    """A linear model has one map: nothing to move, nothing moved."""

    def linear(x):
        return x @ tf.constant([[1.0, -1.0], [0.5, 2.0]])

    x = np.full((2, 2), 0.5, "float32")
    np.testing.assert_array_equal(SaliencyAttack(epsilon=0.1)(linear, x), x)


def test_settings():
    for settings in ({"top": 0.0}, {"top": 1.0}, {"steps": 0}, {"step_size": -1.0}):
        with pytest.raises(ValueError, match="is out of range"):
            SaliencyAttack(epsilon=0.1, **settings)
    with pytest.raises(TypeError, match="targeted"):
        SaliencyAttack(epsilon=0.1, targeted=True)


RNG = np.random.default_rng(15)


W = RNG.normal(size=(6, 2)).astype("float32")


X = RNG.uniform(0.3, 0.7, (9, 6)).astype("float32")


Y = np.arange(9) % 2


def linear(x):
    return tf.linalg.matmul(x, tf.constant(W, x.dtype))


def test_most_salient_share():
    for share in [0.001, 0.25, 0.5, 1]:
        for shape in [(4, 6, 5), (3, 8)]:
            maps = RNG.normal(size=shape)
            region = salient_region(maps, share)
            assert region.shape == shape
            assert region.dtype == "float32"
            for one, values in zip(region, maps, strict=True):
                count = max(1, round(share * values.size))
                assert one.sum() == count
                assert values[one == 1].min() >= np.sort(values.ravel())[-count]
            others = salient_region(maps, share, salient=False)
            np.testing.assert_array_equal(region + others, np.ones(shape))


def test_ties_go_by_order():
    maps = np.array([[[1, 1], [2, 1]]])
    np.testing.assert_array_equal(salient_region(maps), [[[1, 0], [1, 0]]])
    flat = np.zeros((2, 4, 4))
    np.testing.assert_array_equal(salient_region(flat)[:, :2], np.ones((2, 2, 4)))


def test_kinds_and_order_of_magnitude():
    maps = RNG.uniform(size=(3, 4, 4)).astype("float32")
    tensor = salient_region(tf.constant(maps))
    assert tf.is_tensor(tensor)
    np.testing.assert_array_equal(tensor, salient_region(maps))
    np.testing.assert_array_equal(tensor, salient_region(1e-30 * maps))


def test_refused():
    for maps, settings, error, message in [
        (np.zeros((2, 3)), {"share": 0}, ValueError, r"expected a share in \(0, 1\]"),
        (np.zeros((2, 3)), {"share": 50}, ValueError, "Divide percentages"),
        (np.zeros((2, 3)), {"share": None}, TypeError, "`share`"),
        (np.zeros((2, 3)), {"salient": 1}, ValueError, "`salient`"),
        (np.zeros(3), {}, ValueError, r"maps\[None\]"),
        (np.zeros((0, 3)), {}, ValueError, "one map per example"),
        (np.full((1, 3), np.nan), {}, ValueError, "NaN or infinity"),
        (np.array([["a"]]), {}, TypeError, "hold no numbers"),
    ]:
        with pytest.raises(error, match=message):
            salient_region(maps, **settings)


def test_optimum_inside_and_nothing_outside():
    for norm in ["linf", "l2"]:
        for method in [PGD if norm == "l2" else VMIFGSM]:
            region = salient_region(RNG.uniform(size=(9, 6)), 0.5)
            # Along the sphere PGD closes in on the optimum by a factor of two per step.
            settings = {"step_size": 0.2, "steps": 40} if method is PGD else {}
            attack = method(epsilon=0.1, norm=norm, **(settings if norm == "l2" else {}))
            x_adv = attack(linear, X, Y, region=region)
            np.testing.assert_array_equal(x_adv[region == 0], X[region == 0])
            w = np.stack([W[:, 1 - y] - W[:, y] for y in Y]) * region
            length = 1.0 if norm == "linf" else np.linalg.norm(w, axis=1, keepdims=True)
            best = X + 0.1 * (np.sign(w) if norm == "linf" else w / length)
            np.testing.assert_allclose(x_adv, best, atol=1e-5)


def test_both_sides_of_a_map(cnn):
    for explain in [gradient_map_regions, perturbation_map]:
        x = RNG.uniform(size=(6, 8, 8, 1)).astype("float32")
        maps, attack = explain(cnn, x), FGSM(epsilon=0.3)
        sides = [salient_region(maps, 0.3, salient=side) for side in (True, False)]
        results = [attack(cnn, x, region=region) for region in sides]
        for region, x_adv in zip(sides, results, strict=True):
            changed = (x_adv != x)[..., 0]
            assert not changed[region == 0].any()
            assert changed.any()


def test_a_region_without_channels_is_one_whatever_else_it_fits():
    """One example as long as it is wide: steps of a sequence, not its features."""
    steps = np.array([[0, 0, 1, 0, 0, 0]])
    np.testing.assert_array_equal(check_region(steps, (1, 6, 6))[0], np.repeat(steps.T, 6, axis=1))
    mask = np.eye(6)[None]
    np.testing.assert_array_equal(check_region(mask, (1, 6, 6)), mask)
    np.testing.assert_array_equal(check_region(np.eye(3), (3, 3, 3))[1, 1], [1, 1, 1])


RNG_PATCH = np.random.default_rng(14)


SHAPE = (6, 9, 2)


W_PATCH = RNG_PATCH.normal(size=(*SHAPE, 2))


X_PATCH = RNG_PATCH.uniform(size=(7, *SHAPE)).astype("float32")


Y_PATCH = np.arange(7) % 2


def linear_patch(x):
    return tf.tensordot(tf.cast(x, tf.float32), tf.constant(W_PATCH, tf.float32), 3)


def downhill(y):
    return W_PATCH[..., 1 - y] - W_PATCH[..., y]


def best_patch(x, y, side, low, high, places=None):
    """Try every place; on a linear model each pixel goes to one end of the range."""
    w, best = downhill(y), (-np.inf, None)
    if places is None:
        places = np.ndindex(SHAPE[0] - side + 1, SHAPE[1] - side + 1)
    for row, column in places:
        part = np.s_[row : row + side, column : column + side]
        point = x.copy()
        point[part] = np.where(w[part] > 0, high, low)
        best = max(best, (np.sum(w * (point - x)), point), key=lambda pair: pair[0])
    return best[1]


def sides(changed):
    rows, columns = np.any(changed, axis=(1, 2)), np.any(changed, axis=(0, 2))
    return tuple(np.ptp(np.flatnonzero(line)) + 1 for line in (rows, columns))


def test_optimum_of_a_linear_model():
    for low, high, loss in [(0, 1, "cross_entropy"), (-1, 3, "margin")]:
        x = low + (high - low) * X_PATCH
        attack = Patch(size=3, input_range=(low, high), loss=loss, steps=20)
        x_adv = attack(linear_patch, x, Y_PATCH)
        for image, y, result in zip(x, Y_PATCH, x_adv, strict=True):
            expected = best_patch(image, y, 3, low, high)
            np.testing.assert_allclose(result, expected, atol=1e-5)
            assert sides(result != image) == (3, 3)


def test_targeted_and_by_size():
    x_adv = Patch(size=0.5, targeted=True, steps=20)(linear_patch, X_PATCH, 1 - Y_PATCH)
    for image, y, result in zip(X_PATCH, Y_PATCH, x_adv, strict=True):
        expected = best_patch(image, y, 3, 0.0, 1.0)
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_fixed_place():
    x_adv = Patch(size=2, location=(4, 7), steps=20)(linear_patch, X_PATCH, Y_PATCH)
    for image, y, result in zip(X_PATCH, Y_PATCH, x_adv, strict=True):
        expected = best_patch(image, y, 2, 0.0, 1.0, [(4, 7)])
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_random_places():
    def run(restarts):
        attack = Patch(size=2, location="random", restarts=restarts, steps=10)
        result = attack(linear_patch, X_PATCH, Y_PATCH)
        np.testing.assert_array_equal(attack(linear_patch, X_PATCH, Y_PATCH), result)
        return result

    def gain(x_adv):
        w = np.stack([downhill(y) for y in Y_PATCH])
        return np.sum(w * (x_adv - X_PATCH), axis=(1, 2, 3))

    one, six = run(1), run(6)
    for image, result in zip(X_PATCH, six, strict=True):
        assert sides(result != image) == (2, 2)
    # The first try is the same; those won already may keep a weaker one.
    assert (gain(six) >= gain(one) - 1e-4).all()
    assert (gain(six) > gain(one) + 0.1).any()
    best = [best_patch(x, y, 2, 0.0, 1.0) for x, y in zip(X_PATCH, Y_PATCH, strict=True)]
    assert (gain(six) <= gain(np.stack(best)) + 1e-4).all()


def test_region_keeps_the_patch_out():
    region = np.ones(SHAPE[:2])
    region[:, :5] = 0
    x_adv = Patch(size=3, steps=20)(linear_patch, X_PATCH, Y_PATCH, region=region)
    places = [(row, column) for row in range(4) for column in range(3, 7)]
    for image, y, result in zip(X_PATCH, Y_PATCH, x_adv, strict=True):
        np.testing.assert_array_equal(result[:, :5], image[:, :5])
        # A window may lie across the edge, with its inner columns only.
        w = downhill(y) * region[..., None]
        gains = np.where(w > 0, w * (1 - image), -w * image).sum(axis=2)
        best = max(gains[r : r + 3, c : c + 3].sum() for r, c in places)
        assert np.sum(w * (result - image)) == pytest.approx(best, abs=1e-4)


def test_corners():
    gain = RNG_PATCH.uniform(size=(4, 7, 5)).astype("float32")
    windows = np.lib.stride_tricks.sliding_window_view(gain, (3, 3), axis=(1, 2))
    sums = windows.sum(axis=(3, 4)).reshape(4, -1)
    expected = np.stack(np.unravel_index(sums.argmax(1), (5, 3)), axis=1)
    np.testing.assert_array_equal(best_corner(tf.constant(gain), 3), expected)
    places = random_corner(tf.constant([1, 2]), (2, 1), 6000).numpy()
    _, counts = np.unique(places, axis=0, return_counts=True)
    assert len(counts) == 6
    assert (np.abs(counts / 6000 - 1 / 6) < 5 * np.sqrt(5 / 36 / 6000)).all()


def test_refused_settings():
    for settings, error, message in [
        ({"size": 0}, ValueError, "`size`"),
        ({"size": 1.5}, ValueError, r"`size` .* expected a share in \(0, 1\]"),
        ({"size": "5"}, TypeError, "`size`"),
        ({"size": 3, "location": "center"}, ValueError, "Unknown `location`"),
        ({"size": 3, "location": (-1, 0)}, ValueError, "`location`"),
        ({"size": 3, "steps": 0}, ValueError, "`steps`"),
        ({"size": 3, "restarts": 0}, ValueError, "`restarts`"),
        ({"size": 3, "step_size": 0}, ValueError, "`step_size`"),
        ({"size": 3, "epsilon": 0.1}, TypeError, "epsilon"),
        ({}, TypeError, "size"),
    ]:
        with pytest.raises(error, match=message):
            Patch(**settings)


def test_refused_calls():
    with pytest.raises(ValueError, match=r"does not fit: got side 7 .* on 6 x 9"):
        Patch(size=7)(linear_patch, X_PATCH, Y_PATCH)
    with pytest.raises(ValueError, match=r"got side 3 at \(4, 0\)"):
        Patch(size=3, location=(4, 0))(linear_patch, X_PATCH, Y_PATCH)
    with pytest.raises(ValueError, match="A patch needs images"):
        Patch(size=1)(lambda x: x, X_PATCH[:, 0, 0], Y_PATCH)
    with pytest.raises(ValueError, match="A patch has no radius"):
        Patch(size=3)(linear_patch, X_PATCH, Y_PATCH, epsilons=[0.1])
