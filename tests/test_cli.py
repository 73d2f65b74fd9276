"""The command line, as its user types it: real files, real exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import keras_jsigr as kj
from keras_jsigr.attacks.suite import attack_names
from keras_jsigr.cli import ATTACKS, METHODS, Number, main
from keras_jsigr.saliency.explain import METHODS as EXPLAINED

CLASSES = ("dark", "light")
ROOT = Path(__file__).parents[1]


def run(*words, code=0, out=True):
    result = CliRunner().invoke(main, [str(word) for word in words])
    if result.exit_code != code:
        raise AssertionError(f"{words}: {result.exit_code}\n{result.output}") from result.exception
    return (json.loads(result.stdout) if "--json" in words else result.stdout) if out else result


@pytest.fixture(autouse=True)
def interactive():
    """Put back what --json switches off."""
    yield
    keras.config.enable_interactive_logging()


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Forty pictures, dark above or light above."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for number in range(20):
            picture = rng.uniform(0, 60, (10, 12, 3))
            picture[: 5 if label else None] += 120 * label
            file = folder / name / f"{number}.png"
            keras.utils.save_img(file, picture, scale=False)
    return folder


@pytest.fixture(scope="module")
def robust(photos, tmp_path_factory) -> Path:
    """Harden a network by the command line."""
    folder = tmp_path_factory.mktemp("models")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="silu"),
            layers.Flatten(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    net.save(folder / "net.keras")
    told = run(
        *("harden", folder / "net.keras", photos, "--out", folder / "robust.keras"),
        *("--epsilon", "8/255", "--epochs", 8, "--batch-size", 8, "--learning-rate", 0.01),
        *("--record", folder / "run.json", "--json"),
    )
    assert told["accuracy"] == 1.0
    assert told["epsilon"] == pytest.approx(8 / 255)
    return folder / "robust.keras"


def test_a_recorded_run_is_repeated(robust):
    record = robust.with_name("run.json")
    settings = json.loads(record.read_text())["settings"]
    assert settings["epochs"] == 8
    again = robust.with_name("again.keras")
    words = ("harden", robust.with_name("net.keras"), settings["data"], "--out", again)
    run("--config", record, *words, "--epochs", 2, "--json")
    told = keras.models.load_model(again)
    assert told.epsilon == pytest.approx(8 / 255)
    assert int(told.steps_taken.value) == 2 * 4  # its own epochs, the recorded batches
    record.with_name("other.json").write_text("[]")
    other = run("--config", record.with_name("other.json"), "datasets", code=2, out=False)
    assert "is no record" in other.stderr


def test_attack_and_evaluate(robust, photos, tmp_path):
    file = tmp_path / "adversarial.npz"
    told = run("attack", robust, photos, "--attack", "fgsm", "--out", file, "--json")
    assert told["images"] == 8
    assert told["largest_change"] == pytest.approx(8 / 255, abs=1e-5)
    with np.load(file) as arrays:
        model = keras.models.load_model(robust)
        right = model.predict(arrays["x"], verbose=0).argmax(-1) == arrays["y"]
    assert told["accuracy"] == pytest.approx(right.mean(), abs=1e-4)
    pictures = tmp_path / "pictures"
    assert (
        "--levels 256" in run("attack", robust, photos, "--out", pictures, code=2, out=False).stderr
    )
    told = run("attack", robust, photos, "--levels", 256, "--out", pictures, "--json")
    names = [path.name for path in sorted(pictures.iterdir())]
    assert names == ["dark", "light"]
    again = kj.datasets.from_folder(pictures, (8, 8), test_share=0.5, verbose=False)
    both = [model.predict(x, verbose=0).argmax(-1) == y for x, y in again.as_tuples()]
    assert np.concatenate(both).mean() == pytest.approx(told["accuracy"], abs=1e-4)
    report = tmp_path / "report.json"
    words = ("evaluate", robust, photos, "--attack", "pgd", "--no-diagnostics", "--out", report)
    told = run(*words, "--fail-under", 0.0, "--json")
    assert kj.Report.load(report).robust.accuracy == told["robust_accuracy"]
    assert told["clean_accuracy"] >= told["robust_accuracy"]
    low = run(*words, "--epsilon", 0.9, "--fail-under", "99/100", code=1, out=False)
    assert "less than 99.0%" in low.stderr


def test_explain(robust, photos, tmp_path):
    for name in ("maps.png", "maps.npz"):
        run("explain", robust, photos, "--images", 3, "--out", tmp_path / name)
    with np.load(tmp_path / "maps.npz") as arrays:
        assert arrays["maps"].shape == (3, 8, 8)
    assert (tmp_path / "maps.png").read_bytes()[:4] == b"\x89PNG"


def test_export_and_verify(robust, tmp_path):
    folder = tmp_path / "served" / "1"
    run("export", robust, folder)
    assert "radius 0.0313" in run("verify", folder)
    assert run("verify", folder, "--json")["classes"] == 2
    (folder / "saved_model.pb").write_bytes(b"")
    assert "is not what was exported" in run("verify", folder, code=2, out=False).stderr


def test_arrays_from_a_file(robust, tmp_path):
    model = keras.models.load_model(robust)
    x = np.random.default_rng(0).random((6, 8, 8, 3))
    y = model.predict(x, verbose=0).argmax(-1)
    file = tmp_path / "data.npz"
    np.savez(file, x=x, y=y)
    told = run("attack", robust, file, "--attack", "uniform-noise", "--json")
    assert told["clean_accuracy"] == 1.0
    np.savez(file, x=x, y=np.eye(2)[y])
    wrong = run("attack", robust, file, code=2, out=False)
    assert "got labels of shape (6, 2)" in wrong.stderr
    np.savez(file, x=x[:, :7], y=y)
    wrong = run("attack", robust, file, code=2, out=False)
    assert "got inputs (7, 8, 3), expected (8, 8, 3)" in wrong.stderr
    np.savez(file, z=x)
    assert "expected x_train" in run("attack", robust, file, code=2, out=False).stderr
    np.savez(file, x=np.array([{}]), y=y)  # a pickle
    assert "pickle" in run("attack", robust, file, code=2, out=False).stderr


@pytest.mark.slow
def test_accuracy_on_training_images_is_not_told_as_that_on_test_images(robust, tmp_path):
    x = np.random.default_rng(0).random((10, 8, 8, 3))
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(10) % 2)
    words = ("harden", robust.with_name("net.keras"), tmp_path / "data.npz", "--epochs", 1)
    words += ("--out", tmp_path / "out.keras", "--json")
    assert run(*words, "--validation", 0.2)["measured_on"] == "2 validation images"
    assert run(*words, "--validation", 0)["measured_on"] == "10 training images"


def test_errors_are_one_sentence(robust, photos, tmp_path):
    for words, told in (
        (("attack", robust, tmp_path), "cannot be read"),
        (("attack", robust, "no_such_set"), "is not on this machine"),
        (("attack", robust, photos, "--epsilon", "8/0"), "such as 0.03 or 8/255"),
        (("export", robust.with_name("net.keras"), tmp_path / "1"), "is not hardened"),
        (("harden", tmp_path / "none.keras", photos), "does not exist"),
    ):
        result = run(*words, code=2, out=False)
        assert told in result.stderr
        assert "Traceback" not in result.stderr


def test_no_error_looks_like_a_low_accuracy(robust, photos, tmp_path, monkeypatch):
    """Exit code 1 says that the accuracy is below the threshold, and nothing else."""
    damaged = tmp_path / "damaged.keras"
    damaged.write_bytes(robust.read_bytes()[:500])
    assert "Traceback" not in run("attack", damaged, photos, code=2, out=False).stderr
    for error, code in ((RuntimeError("out of memory"), 2), (KeyboardInterrupt(), 130)):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr("keras_jsigr.cli.load_model", fail)
        told = run("evaluate", robust, photos, "--fail-under", 0.5, code=code, out=False).stderr
        assert ("RuntimeError: out of memory" in told) == (code == 2)
    monkeypatch.setenv("KERAS_JSIGR_TRACEBACK", "1")
    monkeypatch.setattr("keras_jsigr.cli.load_model", lambda _: 1 / 0)
    assert "Traceback" in run("attack", robust, photos, code=2, out=False).stderr


@pytest.mark.parametrize(
    ("text", "number"), [("8/255", 8 / 255), ("0.5 / 255", 0.5 / 255), ("1e-3", 1e-3), (3, 3.0)]
)
def test_numbers(text, number):
    assert Number().convert(text, None, None) == pytest.approx(number)


@pytest.mark.parametrize("text", ["8/", "8/0", "1/2/3", "nan", "inf", "eight", ""])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(click.UsageError, match="8/255"):
        Number().convert(text, None, None)


def test_data_sets_and_help():
    assert "embedded" in run("datasets")
    assert "fashion_mnist" in run("datasets", "--json")
    for name in main.commands:
        text = run(name, "--help")
        assert name in ("datasets", "quickstart") or f"keras-jsigr {name}" in text


def test_help_completion_and_usage_need_no_tensorflow():
    look = (
        "import sys, keras_jsigr_cli\n"
        "try:\n    keras_jsigr_cli.main()\n"
        "finally:\n    print([m for m in ('keras_jsigr', 'tensorflow') if m in sys.modules])"
    )
    complete = {"_KERAS_JSIGR_COMPLETE": "bash_complete", "COMP_WORDS": "keras-jsigr ha"}
    for words, more, told in (
        (["evaluate", "--help"], {}, "--fail-under"),
        (["attack", "none.keras", "x"], {}, ""),
        ([], {**complete, "COMP_CWORD": "1"}, "harden"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", look, *words], cwd=ROOT, capture_output=True, text=True,
            check=False, env={**os.environ, **more},
        )  # fmt: skip
        assert told in done.stdout, done.stderr
        assert done.stdout.endswith("[]\n"), done.stdout + done.stderr


def test_the_choices_are_those_of_the_package():
    assert list(ATTACKS) == attack_names()
    assert tuple(sorted(EXPLAINED)) == METHODS


@pytest.mark.slow
def test_from_a_folder_to_a_served_model_without_python(photos, robust, tmp_path):
    """As a shell runs it: every step a process of its own."""

    def shell(*words):
        done = subprocess.run(
            [*map(str, (sys.executable, "-m", "keras_jsigr_cli", *words))],
            cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    shell("harden", robust.with_name("net.keras"), photos, "--epsilon", "4/255", "--epochs", 3)
    shell("evaluate", "robust.keras", photos, "--images", 8, "--out", "report.html")
    shell("export", "robust.keras", "served/1")
    assert "files as exported" in shell("verify", "served/1")
    assert "<!doctype html>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    served = tf.saved_model.load(tmp_path / "served" / "1")
    (name,) = served.signatures["serving_default"].structured_input_signature[1]
    answer = served.signatures["serving_default"](**{name: tf.zeros((2, 8, 8, 3))})
    assert answer["class"].shape == (2,)


@pytest.mark.slow
def test_quickstart(tmp_path):
    run("quickstart", "--out", tmp_path, "--epochs", 1)
    assert kj.serving.verify(tmp_path / "served" / "1")["classes"] == 10
    assert (tmp_path / "maps.png").exists()
