"""Adversarial images of 256 values: what the model sees is what a file holds."""

import keras
import numpy as np
import pytest

import keras_jsigr as kj
from keras_jsigr import attacks

STEP = 1 / 255


@pytest.fixture(scope="module")
def photos():
    """Images as files of 8 bits hold them, some at the ends of the range."""
    values = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1))
    return (values / 255).astype("float32")


@pytest.fixture(scope="module")
def labels(cnn, photos):
    return cnn.predict(photos, verbose=0).argmax(-1)


def off_grid(x, low=0.0, high=1.0):
    places = (x.astype("float64") - low) / (high - low) * 255
    return np.abs(places - np.round(places)).max()


@pytest.mark.parametrize(
    ("attack", "order"),
    [
        (attacks.PGD(7.5 * STEP, steps=3, levels=256), np.inf),
        (attacks.PGD(0.2, norm="l2", steps=3, levels=256), 2),
        (attacks.PGD(0.7, norm="l1", steps=3, levels=256), 1),
        pytest.param(
            attacks.FAB(0.2, norm="l2", steps=3, levels=256), 2, marks=pytest.mark.slow, id="FAB"
        ),
        (attacks.Square(7.5 * STEP, queries=30, levels=256), np.inf),
    ],
)
def test_values_are_those_of_files_inside_of_ball_and_range(cnn, photos, labels, attack, order):
    x_adv = attack(cnn, photos, labels)
    assert off_grid(x_adv) < 1e-3
    assert x_adv.min() >= 0.0
    assert x_adv.max() <= 1.0
    moved = (x_adv.astype("float64") - photos).reshape(len(photos), -1)
    lengths = np.linalg.norm(moved, order, axis=1)
    assert lengths.max() <= attack.epsilon * (1 + 1e-4)
    assert lengths.max() > 0.5 * attack.epsilon
    again = attacks.PGD.from_config if isinstance(attack, attacks.PGD) else type(attack).from_config
    assert again(attack.get_config()).levels == 256


@pytest.mark.slow
def test_a_closest_point_still_fools_when_it_is_rounded(cnn, photos, labels):
    """Most closest points lie less than one value beyond the boundary."""
    found = attacks.FAB(np.inf, norm="l2", steps=10)(cnn, photos, labels)
    fooled = cnn.predict(found, verbose=0).argmax(-1) != labels
    assert fooled.mean() > 0.9
    cut = np.round(found * 255) / 255
    naive = cnn.predict(cut.astype("float32"), verbose=0).argmax(-1) != labels
    rounded = attacks.FAB(np.inf, norm="l2", steps=10, levels=256)(cnn, photos, labels)
    kept = cnn.predict(rounded, verbose=0).argmax(-1) != labels
    assert naive.mean() < 0.8
    assert kept.mean() > 0.9


@pytest.mark.slow
def test_several_radii_and_another_range(cnn, photos, labels):
    def model(x):
        return cnn((x + 1.0) / 2.0)

    x = photos * 2 - 1
    for attack in (attacks.PGD, attacks.FAB):
        method = attack(levels=256, steps=2, norm="linf", input_range=(-1, 1))
        found = method(model, x, labels, epsilons=[0.03, 0.06])
        for radius, x_adv in zip((0.03, 0.06), found, strict=True):
            assert off_grid(x_adv, -1.0) < 1e-3
            assert np.abs(x_adv - x).max() <= radius + 1e-6


def test_inputs_of_other_values_are_refused(cnn, photos, labels):
    with pytest.raises(ValueError, match="Round `x` to them"):
        attacks.FGSM(0.1, levels=256)(cnn, photos + 0.4 * STEP * (photos < 0.9), labels)
    with pytest.raises(ValueError, match="levels"):
        attacks.FGSM(0.1, levels=1)


@pytest.mark.slow
def test_a_report_counts_rounded_images(cnn, photos, labels):
    settings = {"attacks": ["pgd"], "epsilons": [2 * STEP], "diagnostics": False}
    reports = [
        kj.evaluate_robustness(cnn, photos, labels, epsilon, **settings, levels=levels)
        # Less than one value: nothing is left of the ball.
        for epsilon, levels in ((0.9 * STEP, 256), (20 * STEP, 256), (20 * STEP, None))
    ]
    assert reports[0].robust.accuracy == 1.0
    assert reports[1].robust.accuracy < 1.0
    assert reports[1].threat_model["levels"] == 256
    assert "rounded to 256 values" in reports[1].summary()
    assert "levels" not in reports[2].threat_model
    assert any("levels" in text for text in kj.compare(reports[1:]).warnings)


def test_files_hold_the_very_images(cnn, photos, labels, tmp_path):
    x_adv = attacks.PGD(20 * STEP, steps=3, levels=256)(cnn, photos, labels)
    names = [f"class{label}/{n}" for n, label in enumerate(labels)]
    paths = attacks.save_images(tmp_path, x_adv, names=names)
    read = [keras.utils.img_to_array(keras.utils.load_img(p, "grayscale")) for p in paths]
    np.testing.assert_array_equal(np.round(x_adv * 255), read)
    decided = cnn.predict(np.stack(read) / 255, verbose=0).argmax(-1)
    np.testing.assert_array_equal(decided, cnn.predict(x_adv, verbose=0).argmax(-1))


def test_what_files_cannot_hold_is_refused(photos, tmp_path):
    for x, given, match in (
        (photos + 0.3 * STEP, {"input_range": (0, 2)}, "expected multiples"),
        (photos, {"input_range": (0.5, 1)}, "leaves the input range"),
        (photos[0], {}, "expected float images"),
        (photos[:1] * np.nan, {}, "leaves the input range"),
        (photos[:2], {"names": ["a", "a"]}, "got 1 different ones"),
        (photos[:1], {"names": ["../a"]}, "all inside"),
    ):
        with pytest.raises(ValueError, match=match):
            attacks.save_images(tmp_path, x, **given)
    assert not list(tmp_path.iterdir())
