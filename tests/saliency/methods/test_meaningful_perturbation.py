"""Meaningful perturbation: a closed form, and the first steps by NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.saliency import baseline, explain, explainer, make_mask_bank
from keras_jsigr.saliency.methods.meaningful_perturbation import total_variation

NAME = "meaningful_perturbation"


def test_linear_nets_have_an_optimum_in_closed_form(rng):
    # Covering feature i changes the logit by -w_i x_i and costs sparsity / 6.
    w = rng.normal(size=(6, 3)).astype("float32")
    x, y = rng.random((5, 6)).astype("float32"), np.array([0, 1, 2, 0, 1])
    maps = explain(
        lambda v: v @ w,
        x,
        y,
        method=NAME,
        score="logit",
        baseline="zero",
        sparsity=0.6,
        steps=60,
    )
    gain = w.T[y] * x - 0.1
    assert (np.abs(gain) > 1e-3).all()
    np.testing.assert_allclose(maps, gain > 0, atol=1e-6)


def test_first_steps_by_numpy(net, images, labels):
    bank = make_mask_bank((8, 6, 2), (3, 2))
    hats = bank.hats.reshape(6, -1).astype(float)
    cover = baseline(images).numpy().astype(float)
    c = np.full((5, 6), 0.5)
    mean, square = np.zeros_like(c), np.zeros_like(c)
    for step in range(1, 6):
        kept = (c @ hats).reshape(5, 8, 6, 1)
        x = cover + kept * (images - cover)
        slope = net.gradient(x, labels) * (images - cover)
        slope = slope.sum(-1).reshape(5, -1) @ hats.T - 0.3 / 6
        cells = c.reshape(5, 3, 2)
        rough = np.zeros_like(cells)
        for axis in (1, 2):
            change = np.diff(cells, axis=axis)
            push = 3 * np.abs(change) * change
            pad = [(0, 0)] * 3
            rough += np.pad(push, [*pad[:axis], (1, 0), *pad[axis + 1 :]])
            rough -= np.pad(push, [*pad[:axis], (0, 1), *pad[axis + 1 :]])
        slope += 2.0 * rough.reshape(5, 6) / 6
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        way = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        c = np.clip(c - 0.07 * way, 0, 1)
    settings = {"steps": 5, "learning_rate": 0.07, "sparsity": 0.3, "smoothness": 2.0}
    got = explain(
        net, images, labels, method=NAME, grid=(3, 2), score="logit", **settings
    )
    expected = 1 - (c @ hats).reshape(5, 8, 6)
    np.testing.assert_allclose(got, expected, atol=2e-4)


def test_the_score_falls_more_than_under_a_random_mask(net, images, rng):
    own = net.logits(images).argmax(-1)
    maps = explain(net, images, method=NAME, grid=4, sparsity=0.1, baseline="mean")
    assert maps.min() >= 0
    assert maps.max() <= 1 + 1e-6
    cover = baseline(images, "mean").numpy()

    def left(masks):
        x = images + masks[..., np.newaxis] * (cover - images)
        return net.probabilities(x)[np.arange(5), own]

    turned = maps[:, ::-1, ::-1]
    assert (left(maps) <= left(turned) + 1e-6).all()
    assert (left(maps) < net.probabilities(images)[np.arange(5), own]).all()


def test_batches_do_not_matter(net, images):
    whole = explain(net, images, method=NAME, grid=3, steps=5)
    split = explain(net, images, method=NAME, grid=3, steps=5, batch_size=2)
    np.testing.assert_allclose(split, whole, atol=1e-4)
    run = explainer(net, images[:1], method=NAME, grid=2, steps=2)
    assert run(images[:0]).shape == (0, 8, 6)


def test_total_variation():
    c = tf.constant([[0.0, 1.0, 0.0, 0.5]])
    square = make_mask_bank((4, 4, 1), 2)
    # Rows (0, 1) and (0, 0.5): across 1 and 0.5, down 0 and 0.5.
    expected = (1 + 0.125 + 0.125) / 4
    np.testing.assert_allclose(total_variation(c, square), [expected])
    line = make_mask_bank((8, 2), 2)
    np.testing.assert_allclose(total_variation(c, line), [(1 + 1 + 0.125) / 4])
    table = make_mask_bank((4,), 2)
    np.testing.assert_array_equal(total_variation(c, table), [0.0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "`steps` is out of range: got 0"),
        ({"learning_rate": -1.0}, "`learning_rate` is out of range: got -1.0"),
        ({"sparsity": float("inf")}, "`sparsity` is out of range: got inf"),
        ({"baseline": 0.5}, "Unknown `baseline`"),
        ({"score": "margins"}, "Unknown `score`"),
        ({"grid": 9}, "Got grid 9"),
    ],
)
def test_refused(net, images, settings, message):
    with pytest.raises(ValueError, match=message):
        explain(net, images, method=NAME, **settings)
