"""The projection onto a plane within the box, against other ways to solve it."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize

from keras_jsigr.attacks.minimum_norm.linear_projection import linear_projection

NORMS = ["linf", "l2", "l1"]
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


def problems(n, d, seed=0, reachable=True, dtype="float64"):
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(n, d))
    x[:, 0] = rng.integers(0, 2, n)  # On the edge of the box.
    w = rng.normal(size=(n, d)) * rng.uniform(0.01, 3, (1, d))
    w[:, 1] = 0.0
    # All that moving to the farthest corner towards the plane can gain.
    sign = rng.choice([-1.0, 1.0], n)
    gain = (np.abs(w) * np.where(w * sign[:, None] > 0, x, 1 - x)).sum(1)
    share = rng.uniform(0.02, 0.98, n) if reachable else rng.uniform(1.1, 2, n)
    return tuple(a.astype(dtype) for a in (x, w, sign * share * gain))


def project(x, w, gap, norm, input_range=(0.0, 1.0)):
    return linear_projection(*map(tf.constant, (x, w, gap)), input_range, norm).numpy()


def length(delta, norm):
    return np.linalg.norm(delta, ORDERS[norm], axis=-1)


def by_linear_program(x, w, gap, norm):
    """L1 and Linf as linear programs, solved by HiGHS."""
    d = len(x)
    if norm == "linf":  # z, t: minimise t
        cost = np.r_[np.zeros(d), 1]
        one = np.ones((d, 1))
        upper = np.block([[np.eye(d), -one], [-np.eye(d), -one]])
        bounds = [(0, 1)] * d + [(0, None)]
    else:  # z, s: minimise sum(s)
        cost = np.r_[np.zeros(d), np.ones(d)]
        eye = np.eye(d)
        upper = np.block([[eye, -eye], [-eye, -eye]])
        bounds = [(0, 1)] * d + [(0, None)] * d
    equal = np.r_[w, np.zeros(len(cost) - d)][None]
    solved = optimize.linprog(
        cost, upper, np.r_[x, -x], equal, [w @ x - gap], bounds=bounds
    )
    return solved.fun


def by_bisection(x, w, gap):
    """L2: z = clip(x - t w) with the multiplier t found by bisection."""

    def value(t):
        return w @ (np.clip(x - t * w, 0, 1) - x) + gap

    t = optimize.brentq(value, -1e6, 1e6, xtol=1e-15, rtol=1e-14, maxiter=500)
    return np.linalg.norm(np.clip(x - t * w, 0, 1) - x)


@pytest.mark.parametrize("norm", NORMS)
def test_against_solvers(norm):
    x, w, gap = problems(25, 12)
    z = project(x, w, gap, norm)
    assert (z >= 0).all()
    assert (z <= 1).all()
    np.testing.assert_allclose((w * (z - x)).sum(1), -gap, atol=1e-9)
    solve = by_bisection if norm == "l2" else lambda *a: by_linear_program(*a, norm)
    best = [solve(*row) for row in zip(x, w, gap, strict=True)]
    np.testing.assert_allclose(length(z - x, norm), best, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_no_feasible_point_is_nearer(norm):
    """Brute force in two dimensions: all points of the line within the box."""
    rng = np.random.default_rng(3)
    for x, w, gap in zip(*problems(20, 3, seed=4), strict=True):
        keep = [0, 2]
        x, w = x[keep], w[keep]
        along = np.array([-w[1], w[0]]) / np.linalg.norm(w)
        foot = x - gap * w / (w @ w)
        line = foot + rng.uniform(-2, 2, (4000, 1)) * along
        line = line[((line >= 0) & (line <= 1)).all(1)]
        z = project(x[None], w[None], gap[None], norm)
        assert (length(line - x, norm) >= length(z - x, norm) - 1e-9).all()
        assert len(line)


@pytest.mark.parametrize("norm", NORMS)
def test_free_planes_have_a_closed_form(norm):
    """Without the box the distance is |gap| / ||w||_q."""
    rng = np.random.default_rng(5)
    w, gap = rng.normal(size=(30, 9)), rng.normal(size=30)
    z = project(np.zeros((30, 9)), w, gap, norm, (-1e6, 1e6))
    dual = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
    expected = np.abs(gap) / np.linalg.norm(w, dual, axis=1)
    np.testing.assert_allclose(length(z, norm), expected, rtol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_out_of_reach_is_the_nearest_corner(norm):
    x, w, gap = problems(20, 7, reachable=False)
    expected = np.where(w * gap[:, None] > 0, 0.0, np.where(w == 0, x, 1.0))
    np.testing.assert_allclose(project(x, w, gap, norm), expected, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_ties_and_nothing_to_do(norm):
    x = np.full((3, 4), 0.5)
    w = np.array([[1.0, 1, 1, 1], [0, 0, 0, 0], [2, -1, 1, 0]])
    z = project(x, w, np.array([-0.9, -1.0, 0.0]), norm)
    np.testing.assert_allclose(z[0].sum(), 2.9)
    np.testing.assert_array_equal(z[1:], x[1:])
    size = {"linf": 0.225, "l2": 0.45, "l1": 0.9}[norm]
    np.testing.assert_allclose(length(z[0] - x[0], norm), size)


@pytest.mark.parametrize("norm", NORMS)
def test_float32_images_in_a_graph(norm):
    """Many components, any batch size, small gradients, another range."""
    x, w, gap = problems(6, 3072, dtype="float32")
    expected = project(*(a.astype("float64") for a in (x, w, gap)), norm)
    shape = (6, 32, 32, 3)
    spec = tf.TensorSpec((None, *shape[1:]), tf.float32)
    compiled = tf.function(
        lambda x, w, gap: linear_projection(x, w, gap, (0.0, 255.0), norm),
        input_signature=[spec, spec, tf.TensorSpec((None,), tf.float32)],
        autograph=False,
    )
    images, normals = (tf.constant(a.reshape(shape)) for a in (255 * x, 1e-28 * w))
    z = compiled(images, normals, tf.constant(255 * 1e-28 * gap)) / 255
    size = length(expected - x, norm)
    error = length(z.numpy().reshape(6, -1) - expected, norm)
    assert (error < 1e-5 * size).all()


def test_rows_do_not_mix():
    x, w, gap = problems(9, 6)
    for norm in NORMS:
        whole = project(x, w, gap, norm)
        rows = [
            project(x[i : i + 1], w[i : i + 1], gap[i : i + 1], norm)[0]
            for i in range(9)
        ]
        np.testing.assert_allclose(whole, rows, atol=1e-12)
