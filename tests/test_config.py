"""`JSIGRConfig`: every bad value, every pair that excludes each other, the recipes."""

import dataclasses
import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr.config import RECIPES, preset

BAD = [
    ({"jacobian_weight": -1.0}, ValueError, "`jacobian_weight` is out of range"),
    ({"selective_weight": float("nan")}, ValueError, "out of range: got nan"),
    ({"alignment_weight": "0.1"}, TypeError, r"is not a number: got '0.1' \(str\)"),
    ({"jacobian_weight": True}, TypeError, "is not a number: got True"),
    ({"epsilon": 0.0}, ValueError, "`epsilon` is out of range: got 0.0, expected .* >"),
    ({"selective_target": "both"}, ValueError, "Unknown `selective_target`"),
    ({"linearized": True}, ValueError, "A linearized loss is of the class score"),
    ({"linearized": True, "selective_target": "score"}, ValueError, "class_score"),
    ({"linearized": 1}, TypeError, "`linearized` is no switch"),
    ({"batch_share": 0.0}, ValueError, r"a share in \(0, 1\]"),
    ({"norm": "l2"}, ValueError, "Unknown `norm`: got 'l2'"),
    ({"estimator": "vjp"}, ValueError, "Unknown `estimator`"),
    ({"class_score": "prob"}, ValueError, "Unknown `class_score`: got 'prob'"),
    ({"selection": "top"}, ValueError, "Unknown `selection`: got 'top'"),
    ({"selection_quantile": 1.5}, ValueError, "`selection_quantile` is out of range"),
    ({"selection_threshold": -1}, ValueError, "`selection_threshold` is out of range"),
    ({"num_projections": 0}, ValueError, "got 0, expected an integer >= 1"),
    ({"projection_std": float("inf")}, ValueError, "`projection_std` is out of range"),
    ({"start_radius": -0.1}, ValueError, "`start_radius` is out of range: got -0.1"),
    ({"start_patch_sizes": ()}, ValueError, "`start_patch_sizes` is empty"),
    ({"start_patch_sizes": 4}, TypeError, "`start_patch_sizes` is not a list"),
    ({"live_maps": {"grid": 3}}, TypeError, "Got dict as live_maps"),
    ({"check_gradients": "no"}, TypeError, "`check_gradients` is no switch"),
    ({"penalties": "mine"}, TypeError, "Got str as penalties"),
    ({"penalties": ("mine",)}, TypeError, "Got 'mine' among the penalties"),
    (
        {"penalties": (kj.penalties.JacobianNorm(0.1),)},
        ValueError,
        "Penalties have different names",
    ),
    ({"estimator": "jvp"}, ValueError, "norm='l1' needs the rows"),
    (
        {"estimator": "jvp", "norm": "squared", "alignment_weight": 0.1},
        ValueError,
        "alignment_weight > 0 needs the gradient map",
    ),
    (
        {
            "estimator": "finite_difference",
            "norm": "squared",
            "selective_target": "mixed",
        },
        ValueError,
        "selective_target='mixed' needs the gradient",
    ),
]


BAD_MAPS = [
    ({"samples": 0}, ValueError, "`samples` is out of range"),
    ({"grid": 2.5}, TypeError, "`grid` is not an integer"),
    ({"baseline": "noise"}, ValueError, "Unknown `baseline`"),
    ({"score": "lime"}, ValueError, "Unknown `score`"),
]


def test_bad_settings():
    for kind, cases in ((kj.JSIGRConfig, BAD), (kj.LiveMaps, BAD_MAPS)):
        for settings, error, message in cases:
            with pytest.raises(error, match=message):
                kind(**settings)


@keras.saving.register_keras_serializable(package="tests_config")
class Constant(kj.penalties.Penalty):
    def __call__(self, linearization, batch):
        return tf.ones_like(linearization.logits[:, 0])


def test_round_trip_through_json():
    """Numbers of NumPy become plain ones; a penalty of one's own comes along."""
    config = kj.JSIGRConfig(
        jacobian_weight=np.float32(0.5),
        num_projections=np.int64(4),
        selection="hard",
        live_maps=kj.LiveMaps(samples=None, grid=np.int32(3)),
        start_patch_sizes=[2, 4],
        penalties=[Constant(0.25, "constant")],
    )
    written = json.loads(json.dumps(config.get_config()))
    assert kj.JSIGRConfig.from_config(written) == config
    assert [written[k] for k in ("jacobian_weight", "num_projections")] == [0.5, 4]
    serialized = keras.saving.serialize_keras_object(config)
    assert keras.saving.deserialize_keras_object(serialized) == config


def test_settings_of_a_newer_version():
    with pytest.raises(ValueError, match=r"Unknown settings: got \['magic'\]"):
        kj.JSIGRConfig.from_config({**kj.JSIGRConfig().get_config(), "magic": 1})


def test_replace_checks_again():
    config = kj.JSIGRConfig(norm="squared")
    assert config.replace(estimator="jvp").estimator == "jvp"
    with pytest.raises(ValueError, match="norm='l1' needs the rows"):
        config.replace(estimator="jvp", norm="l1")
    with pytest.raises(TypeError, match=r"Unknown settings: got \['form'\]"):
        config.replace(form="fused")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.norm = "l1"


def test_repr_is_code_of_what_differs():
    config = kj.JSIGRConfig.balanced(0.1).replace(live_maps=kj.LiveMaps(grid=3))
    assert "projection_std" not in repr(config)
    names = {"JSIGRConfig": kj.JSIGRConfig, "LiveMaps": kj.LiveMaps}
    again = eval(repr(config), names)
    weights = {name: getattr(config, name) for name in ("jacobian_weight", "selective_weight")}
    assert again.replace(**weights) == config
    for name, weight in weights.items():
        assert getattr(again, name) == pytest.approx(weight)


PENALTIES = [
    ({}, ["jacobian", "selective"], (True, False)),
    ({"selection": "all"}, ["jacobian", "selective"], (False, False)),
    ({"selective_weight": 0.0}, ["jacobian"], (False, False)),
    ({"selection": "none"}, ["jacobian"], (False, False)),
    ({"jacobian_weight": 0.0, "selection": "hard"}, ["selective"], (True, True)),
    (
        {"alignment_weight": 1.0, "selection": "all"},
        ["jacobian", "selective", "alignment"],
        (True, True),
    ),
    ({"estimator": "jvp", "norm": "squared"}, ["fused"], (True, False)),
    (
        {"estimator": "jvp", "norm": "squared", "selective_target": "score"},
        ["jacobian", "selective"],
        (True, False),
    ),
    ({"jacobian_weight": 0.0, "selective_weight": 0.0}, [], (False, False)),
    (
        {"penalties": (Constant(1.0, "constant"),)},
        ["jacobian", "selective", "constant"],
        (True, False),
    ),
]


def test_penalties_of_the_settings():
    for settings, names, needs in PENALTIES:
        penalties = kj.JSIGRConfig(**settings).build_penalties()
        assert [penalty.name for penalty in penalties] == names
        found = [
            any(getattr(penalty, need) for penalty in penalties)
            for need in ("needs_map", "needs_whole_map")
        ]
        assert tuple(found) == needs


# Recipes


def recipe(name, *threat):
    return getattr(kj.JSIGRConfig, name)(*threat)


def test_a_recipe_scales_with_the_threat_model():
    for name in RECIPES:
        ones, wide = recipe(name, 0.1), recipe(name, 25.5, (0.0, 255.0))
        assert (wide.start_radius, wide.epsilon) == (25.5, 25.5)
        for weight in ("jacobian_weight", "selective_weight"):
            assert getattr(wide, weight) == pytest.approx(getattr(ones, weight))
            assert getattr(ones, weight) > 0


def test_a_threat_model_that_cannot_be():
    for threat, message in (
        ((0.0,), "`epsilon` is out of range: .* > 0"),
        ((float("nan"),), "`epsilon` is out of range: .* > 0"),
        ((8,), r"such as input_range=\(0, 255\)"),
        ((0.1, (1.0, 0.0)), "input_range"),
    ):
        with pytest.raises(ValueError, match=message):
            kj.JSIGRConfig.fast(*threat)


def test_the_weights_that_were_measured():
    balanced, fast, faithful = (recipe(name, 0.1) for name in RECIPES)
    assert balanced.jacobian_weight == pytest.approx(0.01)
    assert balanced.selective_weight == pytest.approx(0.08)
    assert (balanced.selective_target, balanced.linearized) == ("mixed", True)
    assert (balanced.batch_share, fast.batch_share) == (0.5, 0.25)
    assert fast.replace(batch_share=0.5) == balanced
    assert faithful.jacobian_weight == pytest.approx(0.005)
    assert faithful.selective_weight == pytest.approx(0.015)
    assert (faithful.selective_target, faithful.selection) == ("jacobian", "hard")


def test_a_linearized_loss_is_that_of_the_worst_point_of_the_ball():
    """Of a linear network of two classes, exactly, and of the whole ball with every pixel."""
    epsilon = 0.1
    kernel = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    x, y = tf.random.stateless_uniform((8, 4), (0, 1)), np.arange(8) % 2
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = x @ kernel
    task = tf.nn.sparse_softmax_cross_entropy_with_logits(y, z)
    penalty = kj.penalties.LinearizedLoss(epsilon, selection="all")
    batch = kj.penalties.PenaltyBatch(tf.one_hot(y, 2), "softmax", [], [0, 1])
    found = task + penalty(kj.penalties.Linearization([x], z, tape), batch)
    corners = np.array(list(itertools.product((-epsilon, epsilon), repeat=4)), np.float32)
    moved = (x[:, None] + corners) @ kernel
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(np.repeat(y[:, None], 16, 1), moved)
    np.testing.assert_allclose(found, tf.reduce_max(loss, axis=1), rtol=1e-5)


def test_presets_of_0_1_are_what_they_were():
    expected = {
        "fast": {"form": "guided", "jacobian_weight": 0.02, "selective_weight": 0.08},
        "balanced": {
            "form": "separate",
            "jacobian_weight": 0.03,
            "selective_weight": 0.12,
            "noise_patches": (2, 4, 7),
        },
        "faithful": {"selection": "hard", "jacobian_weight": 0.005, "selective_weight": 0.015},
    }
    for name, settings in expected.items():
        with pytest.warns(DeprecationWarning, match="recipe='"):
            old = preset(name, epsilon=0.1)
        assert old == {"input_range": (0.0, 1.0), "noise": 0.1} | {
            k: pytest.approx(v) if isinstance(v, float) else v for k, v in settings.items()
        }
