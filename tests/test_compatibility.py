"""What version 0.1.0 wrote, before its modules were moved, is read as it was meant.

The files and the script that wrote them are in `tests/fixtures/v0_1`.
"""

import json
import shutil
import warnings
from functools import reduce
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj

FOLDER = Path(__file__).parent / "fixtures" / "v0_1"
EVALUATION = FOLDER / "evaluation"
# By the expectations: a model file that got lost is a failure.
MODELS = sorted(path.stem for path in (FOLDER / "models").glob("*.npz"))
assert len(MODELS) == 14
API = json.loads((FOLDER / "public_api.json").read_text(encoding="utf-8"))
# Public names that were taken away on purpose, such as "keras_jsigr.serving.export",
# and why.
REMOVED: dict[str, str] = {
    "keras_jsigr.PenaltySettings": "JSIGRConfig, with other names of the settings",
    "keras_jsigr.penalties.PenaltySettings": "JSIGRConfig",
    "keras_jsigr.penalties.directional_penalties": "penalties are objects",
    "keras_jsigr.penalties.guided": "a module that is part of another one",
    "keras_jsigr.penalties.ramp_factor": "warmup_factor",
    "keras_jsigr.penalties.reverse_mode_penalties": "penalties are objects",
    "keras_jsigr.saliency.MeaningfulPerturbation": "rise or occlusion",
    "keras_jsigr.saliency.XpliqueMethod": "Xplique on the unwrapped model",
}
# Variables of a hardened model and figures of its log.
RENAMED = {
    "align_weight": "alignment_weight",
    "align_penalty": "alignment_penalty",
    "ramp_steps": "warmup_steps",
}


@keras.saving.register_keras_serializable(package="v0_1")
class Subclassed(keras.Model):
    """The class of one of the models, as in the script."""

    def __init__(self, units=6, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.head = keras.layers.Dense(3, activation="softmax")
        self.flatten = keras.layers.Flatten()
        self.hidden = keras.layers.Dense(units, activation="gelu")
        self.dropout = keras.layers.Dropout(0.3)

    def call(self, inputs, training=None):
        hidden = self.hidden(self.flatten(inputs))
        return self.head(self.dropout(hidden, training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def read(path):
    with np.load(path) as arrays:
        return dict(arrays)


def named(arrays, prefix):
    start = f"{prefix}."
    found = {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
    return found


def assert_close(actual, expected, what, rtol=1e-4, atol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol, atol, err_msg=what)


def assert_contains(actual, expected, where="report"):
    """A later version may write more, but nothing else."""
    if isinstance(expected, dict):
        assert expected.keys() <= actual.keys(), where
        for key, value in expected.items():
            assert_contains(actual[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(actual) == len(expected), where
        for index, pair in enumerate(zip(actual, expected, strict=True)):
            assert_contains(*pair, f"{where}[{index}]")
    else:
        assert actual == expected, where


def same_versions():
    """Whether what is installed is what the files were written with."""
    written = kj.Report.load(EVALUATION / "resumed.json").versions
    packages = {"keras_jsigr": kj, "keras": keras, "tensorflow": tf}
    return all(written[name] == p.__version__ for name, p in packages.items())


# ---- models


@pytest.mark.parametrize("name", MODELS)
def test_hardened_model_answers_and_trains_on(name):
    expected = read(FOLDER / "models" / f"{name}.npz")
    x, y = named(expected, "x") or expected["x"], expected["y"]
    model = keras.models.load_model(FOLDER / "models" / f"{name}.keras")
    assert isinstance(model, kj.JSIGRModel)
    model.run_eagerly = True  # to trace takes longer than the only step
    assert_close(model.predict(x, verbose=0), expected["predictions"], "predictions")
    assert_close(model.logits(x), expected["logits"], "logits")
    assert int(model.optimizer.iterations) == expected["iterations"] == 2
    for key, value in named(expected, "value").items():
        # A penalty whose weight is 0 has no variable any more.
        assert_close(getattr(model, RENAMED.get(key, key), 0.0), value, key)
    settings = json.loads(str(expected["settings"]))
    assert model.config == kj.JSIGRConfig.from_config(settings)
    assert model.config.jacobian_weight == settings["jacobian_weight"]
    assert model.config.num_projections == settings["projections"]
    assert list(model.input_range) == settings["input_range"]
    assert model.seed == settings["seed"]

    log = model.train_on_batch(x, y, return_dict=True)
    for key, value in named(expected, "log").items():
        assert_close(log[RENAMED.get(key, key)], value, key)
    # After the step: Adam went on with the moments that it had.
    assert_close(model.predict(x, verbose=0), expected["later"], "later")
    assert int(model.optimizer.iterations) == 3


def test_exported_model_answers():
    expected = read(FOLDER / "served.npz")
    x = tf.constant(expected["x"])
    served = tf.saved_model.load(FOLDER / "served")
    card = kj.serving.read_model_card(FOLDER / "served")
    assert set(card["endpoints"]) == {"serving_default", "logits", "explain"}
    assert card["parameters"] == expected["weights"]
    assert card["threat_model"]["epsilon"] == 0.1
    for endpoint, signature in card["endpoints"].items():
        (name,) = [entry["name"] for entry in signature["inputs"]]
        answer = served.signatures[endpoint](**{name: x})
        wanted = named(expected, endpoint)
        outputs = {entry["name"] for entry in signature["outputs"]}
        assert answer.keys() == wanted.keys() == outputs
        for key, value in wanted.items():
            assert_close(answer[key], value, f"{endpoint}: {key}")


# ---- maps


def test_cached_maps():
    expected = read(FOLDER / "maps_expected.npz")
    cache = kj.PerturbationCache.load(FOLDER / "maps.npz")
    assert cache.size == expected["size"]
    coefficients, known = cache.lookup(expected["x"])
    np.testing.assert_array_equal(known, expected["known"])
    assert known.any()
    assert not known.all()
    np.testing.assert_array_equal(coefficients, expected["coefficients"])
    assert_close(cache.maps(expected["x"]), expected["maps"], "maps")


def test_cached_maps_are_not_built_again(tmp_path, capsys):
    if not same_versions():
        pytest.skip("other versions describe the same network in other words")
    data = read(EVALUATION / "data.npz")
    teacher = kj.unwrap(keras.models.load_model(EVALUATION / "net.keras"))
    path = shutil.copy(FOLDER / "maps.npz", tmp_path)
    kj.PerturbationCache.build(teacher, data["x"], data["y"], path=path, grid=3)
    assert "Loaded the maps" in capsys.readouterr().out


# ---- reports


def test_reports_of_every_kind(tmp_path):
    for name, kind in (
        ("report", kj.Report),
        ("resumed", kj.Report),
        ("comparison", kj.evaluation.Comparison),
        ("saliency", kj.evaluation.SaliencyReport),
    ):
        path = EVALUATION / f"{name}.json"
        report = kind.load(path)
        written = json.loads(path.read_text(encoding="utf-8"))
        assert_contains(report.to_document(), written, name)
        if kind is kj.Report:
            assert report.title in repr(report)
            words = [report.title, *(attack.name for attack in report.attacks)]
        else:
            words = [each.title for each in report.reports]
        assert_rendered(report, tmp_path, words)


def assert_rendered(report, folder, words):
    pytest.importorskip("jinja2", reason="jinja2 is missing")
    for suffix in ("html", "md"):
        path = folder / f"page.{suffix}"
        report.save(path)
        page = path.read_text(encoding="utf-8")
        assert all(word in page for word in words)
    if hasattr(report, "summary"):
        assert report.summary()


def test_evaluation_goes_on(tmp_path):
    data = read(EVALUATION / "data.npz")
    folder = shutil.copytree(EVALUATION / "resume", tmp_path / "resume")
    before = sorted(folder.rglob("*"))
    written = kj.Report.load(EVALUATION / "resumed.json")
    report = kj.evaluate_robustness(
        keras.models.load_model(EVALUATION / "net.keras"),
        data["x"],
        data["y"],
        epsilon=0.05,
        attacks=["fgsm"],
        epsilons=[0.1],
        diagnostics=False,
        examples=0,
        resume=folder,
        verbose=0,
    )
    assert (report.clean, report.robust) == (written.clean, written.robust)
    assert [a.accuracy for a in report.attacks] == [a.accuracy for a in written.attacks]
    assert report.curve == written.curve
    # What is kept has another format now: it is computed again, beside what is there.
    assert set(folder.rglob("*")) > set(before)


# ---- names


def found(path):
    try:
        with warnings.catch_warnings():  # the old name of something may warn
            warnings.simplefilter("ignore", DeprecationWarning)
            reduce(getattr, path.split(".")[1:], kj)
    except AttributeError:
        return False
    return True


def test_public_and_removed_names():
    assert all(API.values())
    public = {f"{module}.{name}" for module, names in API.items() for name in names}
    assert [path for path in public if path not in REMOVED and not found(path)] == []
    assert REMOVED.keys() <= public
    assert [path for path in REMOVED if found(path)] == []
    assert all(REMOVED.values())
