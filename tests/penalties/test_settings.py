"""Settings: every bad value and every pair that excludes each other."""

import json

import numpy as np
import pytest

from keras_jsigr.penalties import PenaltySettings


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"jacobian_weight": -1.0}, ValueError, "`jacobian_weight` is out of range"),
        ({"selective_weight": float("nan")}, ValueError, "out of range: got nan"),
        ({"selective_weight": float("inf")}, ValueError, "out of range: got inf"),
        ({"align_weight": "0.1"}, TypeError, r"is not a number: got '0.1' \(str\)"),
        ({"jacobian_weight": True}, TypeError, "is not a number: got True"),
        ({"form": "both"}, ValueError, "Unknown `form`: got 'both'"),
        ({"norm": "l2"}, ValueError, "Unknown `norm`: got 'l2'"),
        ({"estimator": "hutchinson"}, ValueError, "Unknown `estimator`"),
        ({"score": "prob"}, ValueError, "Unknown `score`: got 'prob'"),
        ({"selection": "top"}, ValueError, "Unknown `selection`: got 'top'"),
        ({"baseline": "noise"}, ValueError, "Unknown `baseline`"),
        ({"saliency_score": "lime"}, ValueError, "Unknown `saliency_score`"),
        ({"quantile": 1.5}, ValueError, "`quantile` is out of range"),
        ({"threshold": -0.5}, ValueError, "`threshold` is out of range"),
        (
            {"projections": 0},
            ValueError,
            "`projections` is out of range: got 0, expected an integer >= 1",
        ),
        ({"masks_per_step": 0}, ValueError, "`masks_per_step` is out of range"),
        (
            {"grid": 0},
            ValueError,
            "`grid` is out of range: got 0, expected an integer >= 1",
        ),
        ({"grid": 2.5}, TypeError, "`grid` is not an integer"),
        ({"seed": None}, TypeError, "`seed` is not an integer"),
        ({"seed": 2**31}, ValueError, "`seed` is out of range"),
        ({"ramp_steps": 1.5}, TypeError, "`ramp_steps` is not an integer"),
        (
            {"delay_steps": -1},
            ValueError,
            "`delay_steps` is out of range: got -1, expected an integer >= 0",
        ),
        ({"input_range": (1.0, 0.0)}, ValueError, "expected low < high"),
        ({"input_range": (0.0, float("inf"))}, ValueError, "a finite number"),
        ({"input_range": 255}, TypeError, "is not a pair"),
        ({"noise": -0.1}, ValueError, "`noise` is out of range: got -0.1"),
        ({"noise": float("inf")}, ValueError, "`noise` is out of range: got inf"),
        ({"noise": "0.1"}, TypeError, "`noise` is not a number"),
        (
            {"noise": 8.0},
            ValueError,
            "`noise` is wider than the inputs: got 8, expected at most 1",
        ),
        ({"estimator": "jvp"}, ValueError, "norm='l1' needs the rows"),
        ({"estimator": "finite_difference"}, ValueError, "Use norm='squared'"),
        (
            {"estimator": "jvp", "norm": "squared", "align_weight": 0.1},
            ValueError,
            "align_weight > 0 needs the gradient map",
        ),
    ],
)
def test_bad_settings(settings, error, message):
    with pytest.raises(error, match=message):
        PenaltySettings(**settings)


def test_round_trip_through_json():
    settings = PenaltySettings(
        jacobian_weight=0.5, selection="hard", inputs=("image",), masks_per_step=None,
        input_range=(0, 255),
    )  # fmt: skip
    config = json.loads(json.dumps(settings.get_config()))
    assert PenaltySettings.from_config(config) == settings


def test_numbers_of_numpy_become_plain_ones():
    settings = PenaltySettings(
        jacobian_weight=np.float32(0.5), grid=np.int64(4), ramp_steps=np.int32(7)
    )
    config = json.loads(json.dumps(settings.get_config()))
    assert [config[k] for k in ("jacobian_weight", "grid", "ramp_steps")] == [0.5, 4, 7]


def test_settings_of_a_newer_version():
    with pytest.raises(ValueError, match=r"Unknown settings: got \['magic'\]"):
        PenaltySettings.from_config({**PenaltySettings().get_config(), "magic": 1})


def test_what_the_objective_looks_at():
    assert PenaltySettings().uses_map
    assert not PenaltySettings(selection="all").uses_map
    assert not PenaltySettings(selective_weight=0.0).uses_map
    assert PenaltySettings(selective_weight=0.0, align_weight=1.0).uses_map
    assert PenaltySettings(selection="hard").needs_whole_map
    assert not PenaltySettings().needs_whole_map
    assert not PenaltySettings(selection="none").selects
