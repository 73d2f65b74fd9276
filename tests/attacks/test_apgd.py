"""Auto-PGD against a reference of its own, and what it has to be better at."""

import itertools
import math
from itertools import pairwise

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import APGD, PGD, AttackContext, StepState, TargetedAPGD
from keras_jsigr.attacks.apgd import checkpoints, momentum_step, start_momentum
from keras_jsigr.attacks.gradient_attack import run_restarts
from keras_jsigr.attacks.losses import attack_loss, misclassified
from keras_jsigr.attacks.norms import BALLS
from keras_jsigr.core.random import fold_in
from keras_jsigr.core.variables import OWN

RNG = np.random.default_rng(13)


W1, W2 = RNG.normal(size=(6, 12)), RNG.normal(size=(12, 4))


X = RNG.uniform(size=(24, 6))


Y = np.argmax(np.sin(3 * X @ W1) @ W2, axis=1)


TARGETS, SEED = tf.one_hot(Y, 4), tf.constant([5, 6])


RADII = {"linf": 0.03, "l2": 0.06}


def network(x):
    return tf.sin(3 * x @ tf.constant(W1, x.dtype)) @ tf.constant(W2, x.dtype)


class Reference:
    """Algorithm 1 of arXiv 2003.01690, one example at a time, without TensorFlow."""

    def __init__(self, x, y, norm, loss):
        self.x, self.y, self.norm, self.loss = x, y, norm, loss
        # The ball of the package keeps a millionth of room for roundings.
        self.radius = RADII[norm] * (1.0 if norm == "linf" else 1 - 1e-6)

    def logits(self, x):
        return np.sin(3 * x @ W1) @ W2

    def value(self, x):
        return self.value_of(self.logits(x))

    def value_of(self, z):
        """The objective, rounded to the precision it is compared in."""
        if self.loss == "cross_entropy":  # The log odds, monotone in it.
            value = np.log(np.exp(np.delete(z, self.y)).sum()) - z[self.y]
        else:
            ordered = np.sort(z)[::-1]
            value = np.delete(z, self.y).max() - z[self.y]
            value = value / (ordered[0] - ordered[2])
        return np.float32(value)

    def gradient(self, x):
        z, order = self.logits(x), np.argsort(-self.logits(x))
        one = np.eye(4)
        if self.loss == "cross_entropy":
            p = np.exp(z) / np.exp(z).sum()
            g = p - one[self.y]
        else:
            other = order[order != self.y][0]
            top, third = order[0], order[2]
            if (other, self.y) == (top, third):
                return np.zeros_like(x)  # The ratio is one throughout.
            spread = z[top] - z[third]
            g = (one[other] - one[self.y]) / spread
            g -= (z[other] - z[self.y]) / spread**2 * (one[top] - one[third])
        return W1 @ (3 * np.cos(3 * x @ W1) * (W2 @ g))

    def project(self, x):
        delta = x - self.x
        if self.norm == "linf":
            delta = np.clip(delta, -self.radius, self.radius)
        elif np.linalg.norm(delta) > self.radius:
            delta = delta * (self.radius / np.linalg.norm(delta))
        return np.clip(self.x + delta, 0.0, 1.0)

    def stepped(self, x, eta):
        g = self.gradient(x)
        g = np.sign(g) if self.norm == "linf" else g / (np.linalg.norm(g) or 1.0)
        return self.project(x + eta * g)

    def iterates(self, start, steps):
        """Return x_1 ... x_steps and the largest value of x_0 ... x_steps."""
        # p_j and w_j of section 4, as they stand there.
        p = [0.0, 0.22]
        while p[-1] < 1:
            p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
        w = [math.ceil(round(share * steps, 9)) for share in p]
        eta, x, last = 2 * RADII[self.norm], start, None
        f = [self.value(x)]
        best, best_x = f[0], x
        etas, bests, climbs, path = [eta], [best], [], []
        for k in range(steps):
            if k in w[1:]:
                j = w.index(k)
                rho = sum(climbs[w[j - 1] : k]) / (k - w[j - 1])
                if rho < 0.75 or (etas[-1] == eta and bests[-1] == best):
                    etas, eta = [*etas, eta], eta / 2
                    x, f[-1] = best_x, best
                else:
                    etas.append(eta)
                bests.append(best)
            z = self.stepped(x, eta)
            new = z if last is None else x + 0.75 * (z - x) + 0.25 * (x - last)
            last, x = x, self.project(new)
            f.append(self.value(x))
            climbs.append(f[-1] > f[-2])
            if f[-1] > best:
                best, best_x = f[-1], x
            path.append(x)
        return path, best


class Exact(APGD):
    """The steps of the package on the reference's gradients, in double precision."""

    def gradient(self, context, x, *, state, seed):
        each = zip(references(self.norm, self.loss), x.numpy(), strict=True)
        gradient, logits = zip(*((r.gradient(row), r.logits(row)) for r, row in each), strict=True)
        return tf.constant(np.stack(gradient)), tf.constant(np.stack(logits))

    def objective(self, logits, context):
        each = zip(references(self.norm, self.loss), logits.numpy(), strict=True)
        return tf.constant([r.value_of(row) for r, row in each])


def references(norm, loss):
    return [Reference(x, y, norm, loss) for x, y in zip(X, Y, strict=True)]


def exactly(norm):
    """The context of a search in double precision."""
    epsilon = tf.constant(RADII[norm], tf.float64)
    return AttackContext(network, tf.constant(X), TARGETS, epsilon, SEED, norm)


def settings(norm, loss, steps, **others):
    return {
        "epsilon": RADII[norm],
        "norm": norm,
        "loss": loss,
        "steps": steps,
        "random_start": False,
        **others,
    }


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_same_iterates_as_the_reference(norm):
    cases = itertools.product((2, 30), ("cross_entropy", "dlr"), (False, True))
    for steps, loss, random_start in cases:
        attack = Exact(**settings(norm, loss, steps, random_start=random_start))
        start = X
        if random_start:
            ball = BALLS[norm](tf.constant(X), RADII[norm], (0.0, 1.0))
            start = ball.sample(fold_in(fold_in(SEED, 0), 0)).numpy()
        runs = [
            reference.iterates(x, steps)
            for reference, x in zip(references(norm, loss), start, strict=True)
        ]
        last, _ = run_restarts(attack, exactly(norm), remember=False)
        np.testing.assert_allclose(last.x, [path[-1] for path, _ in runs], atol=1e-8)


def test_the_best_iterate_counts():
    for norm, loss in [("linf", "cross_entropy"), ("l2", "dlr")]:
        found, _ = run_restarts(Exact(**settings(norm, loss, 5)), exactly(norm))
        open_rows = ~found.success.numpy()
        assert 0 < open_rows.sum() < len(X)
        lost = []
        for b, reference in enumerate(references(norm, loss)):
            if open_rows[b]:
                path, best = reference.iterates(X[b], 5)
                assert reference.value(found.x[b].numpy()) == pytest.approx(best, abs=1e-6)
                lost.append(best - reference.value(path[-1]))
        assert max(lost) > 1e-4  # The last one would miss by a hundred times as much.


def test_compiled_in_single_precision():
    """The whole way, with the gradients and losses of the package."""
    norm = "l2"
    attack = APGD(**settings(norm, "cross_entropy", 6))
    step = tf.function(lambda x: attack.perturb(network, x, TARGETS, seed=SEED))
    last = step(tf.constant(X, tf.float32))
    for reference, x, actual in zip(
        references(norm, "cross_entropy"), X, last.numpy(), strict=True
    ):
        path, _ = reference.iterates(x, 6)
        np.testing.assert_allclose(actual, path[-1], atol=1e-5)


def test_checkpoints():
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == [0]
    for steps in range(1, 60):
        marks = checkpoints(steps)
        assert marks == sorted(set(marks))
        assert marks[-1] < steps


def step_sizes(values):
    """Feed given objectives to a hundred steps, and note the step size of each."""
    x, sizes = tf.constant([[0.5]]), []
    ball, state = BALLS["linf"](x, 0.1, (0.0, 1.0)), start_momentum(x, 1.0)
    for step, value in enumerate(values):
        now = StepState(x, tf.ones_like(x), None, state, tf.constant(step), ball)
        value = tf.constant([value], tf.float32)
        _, state = momentum_step(now, value, 100)
        sizes.append(float(state.step_size[0]))
    return sizes


def falls(sizes):
    """Return the steps at which the step size was halved."""
    assert {b / a for a, b in pairwise(sizes)} <= {1.0, 0.5}
    return [step for step in range(1, len(sizes)) if sizes[step] < sizes[step - 1]]


def test_the_step_size_is_kept_while_most_steps_climb():
    assert falls(step_sizes(np.arange(100))) == []
    # Five steps down leave 17 of 22 that climb, six leave too few.
    for down, halved in ((5, []), (6, [22])):
        values = np.cumsum([0.0, *[-0.1] * down, *[1.0] * (22 - down)])
        assert falls(step_sizes(values)) == halved


def test_the_step_size_is_halved_every_other_time_without_a_better_point():
    """The best point is the first; all other steps climb, but not as high."""
    values = [100.0, *np.arange(22) / 10]
    # From the best again, a step down and small steps up, span after span.
    for span in (19, 16, 13):
        values += [*np.arange(span) / 10]
    assert falls(step_sizes(values[:71])) == [22, 57]


SMALL = {"linf": 0.05, "l2": 0.25, "l1": 0.8}


@pytest.fixture(scope="module")
def trained():
    """A net that was trained for a while, and points it is right on."""
    keras.utils.set_random_seed(7)
    rng = np.random.default_rng(7)
    centres = rng.uniform(0.3, 0.7, (6, 8, 8, 1))
    y = rng.integers(0, 6, 700)
    x = np.clip(centres[y] + rng.normal(0, 0.12, (700, 8, 8, 1)), 0, 1)
    x = x.astype("float32")
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(24, activation="relu"),
            layers.Dense(6),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(x[:600], y[:600], batch_size=60, epochs=12, verbose=0)
    z = model(x).numpy()
    right = np.argmax(z, axis=1) == y
    assert right.mean() > 0.9
    return model, x[right][-100:], y[right][-100:]


@pytest.mark.slow
def test_not_weaker_than_pgd(trained):
    """Equal numbers of gradients, and the step size of PGD is the usual one."""
    for norm, loss in [("linf", "cross_entropy"), ("l2", "margin"), ("l1", "margin")]:
        model, x, y = trained
        same = {"epsilon": SMALL[norm], "norm": norm, "loss": loss, "steps": 15}
        values = []
        for method in (PGD, APGD):
            z = model(method(**same)(model, x, y))
            values.append(attack_loss(z, tf.one_hot(y, 6), "margin").numpy())
        weaker, stronger = values
        assert stronger.mean() >= weaker.mean() - 1e-6
        assert (stronger > 0).sum() >= (weaker > 0).sum()


def test_more_steps_do_not_harm(trained):
    model, x, y = trained
    values = []
    for steps in (5, 25):
        attack = APGD(epsilon=SMALL["l2"], norm="l2", steps=steps)
        z = model(attack(model, x, y))
        values.append(float(tf.reduce_mean(attack_loss(z, tf.one_hot(y, 6), "margin"))))
    assert values == sorted(values)


@pytest.mark.slow
def test_early_stop_fools_the_same_examples(trained):
    for norm, loss in [("linf", "dlr"), ("l1", "margin")]:
        model, x, y = trained
        hits = []
        for early_stop in (False, True):
            attack = APGD(epsilon=SMALL[norm], norm=norm, loss=loss, steps=9, early_stop=early_stop)
            x_adv = attack(model, x, y)
            moved = np.abs(x_adv.astype("float64") - x).reshape(len(x), -1)
            length = {"linf": moved.max(1), "l1": moved.sum(1)}.get(
                norm, np.linalg.norm(moved, axis=1)
            )
            assert length.max() <= SMALL[norm] + 1e-6
            hits.append(misclassified(model(x_adv), tf.one_hot(y, 6)).numpy())
        np.testing.assert_array_equal(*hits)
        assert 0 < hits[0].sum() < len(x)


def test_linear_optimum():
    """Two classes: the margin grows along one direction."""

    def check(norm):
        rng = np.random.default_rng(1)
        w = rng.normal(size=(8, 2)).astype("float32")
        x = rng.uniform(0.3, 0.7, (9, 8)).astype("float32")
        y = np.arange(9) % 2
        down = np.stack([w[:, 1 - k] - w[:, k] for k in y])
        attack = APGD(epsilon=0.25, norm=norm, steps=60)
        gained = ((attack(lambda x: x @ w, x, y) - x) * down).sum(1)
        dual = np.linalg.norm(down, 1 if norm == "linf" else 2, axis=1)
        np.testing.assert_allclose(gained, 0.25 * dual, rtol=1e-4)

    for norm in ["l2"]:
        check(norm)


def test_l1_fills_one_component_after_the_other():
    """Where the range binds, the next largest component takes the rest."""
    x, w = tf.fill((1, 40), 0.9), tf.constant(np.linspace(0.1, 2.0, 40), tf.float32)

    def model(x):
        along = tf.reduce_sum(x * w, axis=1, keepdims=True)
        return tf.concat([tf.zeros_like(along), along - 100.0], axis=1)

    x_adv = APGD(epsilon=0.35, norm="l1", steps=100)(model, x, [0])
    expected = np.zeros(40)
    expected[-3:], expected[-4] = 0.1, 0.05
    # The best of a hundred steps, one of which is never exactly the optimum.
    gained = float(tf.reduce_sum((x_adv - x) * w))
    assert gained >= 0.99 * (expected * w.numpy()).sum()
    assert np.count_nonzero(x_adv - x) < 10


def test_confident_models_are_climbed():
    """Cross entropy is zero in single precision everywhere, its order is not."""
    w = np.random.default_rng(3).normal(size=(10, 3)).astype("float32")
    x = np.random.default_rng(4).uniform(0.3, 0.7, (20, 10)).astype("float32")

    def confident(x):
        return 1e3 * (tf.sin(3.0 * x) @ w)

    y = np.argmax(confident(x), axis=1)
    z = confident(APGD(epsilon=0.02, steps=20)(confident, x, y))
    rows = tf.one_hot(y, 3)
    before = attack_loss(confident(x), rows, "margin").numpy()
    after = attack_loss(z, rows, "margin").numpy()
    assert (after > before + 1.0).all()


def test_other_precisions():
    def check(dtype, norm):
        x = np.random.default_rng(8).uniform(size=(5, 6)).astype(dtype)
        attack = APGD(epsilon=0.3, norm=norm, steps=4, restarts=2)

        def model(x):
            return network(tf.cast(x, tf.float32))

        x_adv = attack(model, x)
        assert x_adv.dtype == dtype
        moved = x_adv.astype("float64") - x.astype("float64")
        length = np.linalg.norm(moved, 1 if norm == "l1" else 2, axis=1)
        assert length.max() <= 0.3 + 1e-6
        assert length.max() > 0.1
        assert x_adv.min() >= 0.0
        assert x_adv.max() <= 1.0

    for dtype, norm in [("float16", "l1")]:
        check(dtype, norm)


X_APGD_TARGETED = np.full((1, 4), 0.5, "float32")


class Slopes:
    """Five classes: how likely at x and how fast they rise; counts the examples."""

    def __init__(self, behind, slopes):
        self.behind, self.slopes = behind, slopes
        self.examples = tf.Variable(0, name=OWN)  # goes on, unlike variables of models

    def __call__(self, x):
        self.examples.assign_add(tf.shape(x)[0])
        along = tf.reduce_sum(x - 0.5, axis=1, keepdims=True)
        return tf.constant(self.behind, x.dtype) + along * tf.constant(self.slopes, x.dtype)


def test_classes_are_tried_in_the_order_of_their_logits():
    """Classes 1 and 2 rise to one side; class 3, reached first, to the other."""
    for classes, reached, early_stop in [
        (2, False, True),
        (3, True, True),
        (3, True, False),
    ]:
        model = Slopes([0.0, -1.0, -2.0, -3.0, -4.0], [0.0, 1.0, 1.0, -60.0, 0.1])
        attack = TargetedAPGD(
            epsilon=0.05,
            steps=8,
            target_classes=classes,
            random_start=False,
            early_stop=early_stop,
        )
        z = model(attack(model, X_APGD_TARGETED, [0]))
        assert int(tf.argmax(z, axis=1)[0]) == (3 if reached else 0)


def test_only_what_is_still_right_goes_on():
    model = Slopes([0.0, -1.0, -1.5, -3.0, -4.0], [0.0, 30.0, 0.1, 0.1, 0.1])
    attack = TargetedAPGD(epsilon=0.05, steps=4, random_start=False, target_classes=4)
    weak = np.repeat(X_APGD_TARGETED, 6, axis=0)
    strong = np.full((6, 4), [0.45, 0.45, 0.45, 0.45], "float32")
    x = np.concatenate([strong[:2], weak, strong[2:]])
    attack(model, x, np.zeros(12, int))
    model.examples.assign(0)
    x_adv = attack(model, x, np.zeros(12, int))
    # Once at x; per class four gradients and a last look. The second to fourth class
    # are tried for the six strong ones alone.
    assert int(model.examples) == 12 + 5 * 12 + 3 * 5 * 6
    fooled = misclassified(model(x_adv), tf.one_hot(np.zeros(12, int), 5)).numpy()
    np.testing.assert_array_equal(fooled, np.r_[[0] * 2, [1] * 6, [0] * 4] == 1)


@pytest.mark.slow
def test_few_classes():
    """The number of classes to try is cut, and the loss needs no fourth class."""

    def check(norm, classes):
        w = np.random.default_rng(3).normal(size=(8, classes)).astype("float32")
        x = np.random.default_rng(4).uniform(0.4, 0.6, (20, 8)).astype("float32")

        def linear(x):
            return (x - 0.5) @ w

        z = linear(x)
        y = np.argmax(z, axis=1)
        # The distance to the nearest of the other classes is known in closed form.
        dual = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
        distance = np.full((20, classes), np.inf)
        for t in range(classes):
            gap = z[np.arange(20), y] - z[:, t]
            slope = np.linalg.norm(w[:, t] - w[:, y].T, dual, axis=1)
            distance[t != y, t] = gap[t != y] / slope[t != y]
        distance = distance.min(axis=1)
        epsilon = float(np.median(distance))
        assert epsilon < 0.4  # The range is farther away.
        x_adv = TargetedAPGD(epsilon=epsilon, norm=norm, steps=40)(linear, x, y)
        fooled = np.argmax(linear(x_adv), axis=1) != y
        assert fooled[distance < 0.98 * epsilon].all()
        assert not fooled[distance > epsilon * (1 + 1e-5)].any()

    for norm, classes in [("l1", 3)]:
        check(norm, classes)


@pytest.mark.slow
def test_not_weaker_than_one_untargeted_run(cnn, images, labels):
    """On a curved model, with all classes tried."""
    same = {"epsilon": 0.15, "steps": 10}
    rows = tf.one_hot(labels, 5)
    some = misclassified(cnn(APGD(loss="dlr", **same)(cnn, images, labels)), rows)
    attack = TargetedAPGD(early_stop=True, **same)
    x_adv = attack(cnn, images, labels)
    more = misclassified(cnn(x_adv), rows)
    assert (more | ~some).numpy().all()
    assert more.numpy().any()
    np.testing.assert_array_equal(x_adv, attack(cnn, images, labels))
    assert np.abs(x_adv - images).max() <= 0.15 + 1e-6


def test_settings():
    attack = TargetedAPGD(epsilon=0.1, target_classes=5, steps=20, restarts=2)
    assert attack.name == "APGD-T"
    assert attack.passes == 5 * 20 * 2
    assert "loss" not in attack.get_config()
    assert APGD().name == "APGD-CE"
    assert APGD(loss="dlr").name == "APGD-DLR"
    with pytest.raises(ValueError, match="`target_classes` is out of range: got 0"):
        TargetedAPGD(epsilon=0.1, target_classes=0)
    with pytest.raises(ValueError, match="targeted"):
        TargetedAPGD(epsilon=0.1, targeted=True)
