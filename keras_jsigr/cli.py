"""The command line `keras-jsigr`: harden, attack, evaluate, explain, export, verify."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

if TYPE_CHECKING:
    import keras
    import numpy as np
    import numpy.typing as npt

    import keras_jsigr as kj
    from keras_jsigr.attacks import suite
    from keras_jsigr.core import arguments, batching, files
    from keras_jsigr.core import logits as heads

    Array = npt.NDArray[Any]
else:

    class Lazy:
        """A module that is imported when it is used: help and completion need no TensorFlow."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            return getattr(importlib.import_module(self._name), attribute)

    keras, np, kj = Lazy("keras"), Lazy("numpy"), Lazy("keras_jsigr")
    suite, files = Lazy("keras_jsigr.attacks.suite"), Lazy("keras_jsigr.core.files")
    arguments, heads = Lazy("keras_jsigr.core.arguments"), Lazy("keras_jsigr.core.logits")
    batching = Lazy("keras_jsigr.core.batching")

# fmt: off
ATTACKS = (
    "fgsm", "bim", "pgd", "apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "deepfool",
    "carlini-wagner", "square", "spsa", "hopskipjump", "uniform-noise", "gaussian-noise",
    "mi-fgsm", "ni-fgsm", "di-fgsm", "ti-fgsm", "si-fgsm", "vmi-fgsm",
)
METHODS = (
    "grad_cam", "gradient", "gradient_x_input", "integrated_gradients", "occlusion",
    "perturbation", "rise", "sarfa", "smoothgrad", "vargrad",
)
# fmt: on
BELOW, FAILED, INTERRUPTED = 1, 2, 130


class Images(NamedTuple):
    """The images of a task, in the range of the model."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    class_names: list[str] | None
    source: str


class Number(click.ParamType):  # type: ignore[type-arg]
    """A number, or a ratio such as 8/255."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number."""
        try:
            parts = [Fraction(part.strip()) for part in str(value).split("/")]
            above, below = parts if len(parts) > 1 else (parts[0], Fraction(1))
            return float(above / below)
        except (ValueError, ZeroDivisionError):
            self.fail(f"got {value!r}, expected a number such as 0.03 or 8/255", param, ctx)


class Refused(click.ClickException):
    """What a user can mend."""

    exit_code = FAILED


class Commands(click.Group):
    """Commands whose errors are one sentence and whose runs can be repeated."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; tell errors in a sentence. Python's own exit code would be 1."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (KeyboardInterrupt, click.Abort):
            raise click.exceptions.Exit(INTERRUPTED) from None
        except Exception as error:
            if os.environ.get("KERAS_JSIGR_TRACEBACK"):
                traceback.print_exc()
            told = " ".join(str(error).split())
            if not isinstance(error, ValueError | TypeError | ImportError | OSError):
                told = f"{type(error).__name__}: {told[:300]}. See all: KERAS_JSIGR_TRACEBACK=1."
            raise Refused(told) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="keras-jsigr")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False),
    help="A file that --record wrote: its settings stand where the command line names none.",
)
@click.pass_context
def main(ctx: click.Context, config: str | None) -> None:
    """Robust, explainable Keras classifiers without a line of Python.

    DATA is a folder with a subfolder of images per class, an .npz file with x_train, y_train,
    x_test and y_test (or x and y), or the name of a data set on this machine (see `datasets`).

    \b
    keras-jsigr harden net.keras photos/ --epsilon 4/255 --epochs 10 --out robust.keras
    keras-jsigr evaluate robust.keras photos/ --out report.html --fail-under 0.5
    keras-jsigr export robust.keras served/1

    Exit codes: 0 done, 1 accuracy below --fail-under, 2 an error. Completion in bash:
    eval "$(_KERAS_JSIGR_COMPLETE=bash_source keras-jsigr)"; zsh_source and fish_source, too.
    """
    if config is not None:
        recorded = json.loads(Path(config).read_text(encoding="utf-8"))
        if not isinstance(recorded, dict) or not isinstance(recorded.get("settings"), dict):
            raise ValueError(f"'{config}' is no record: got a file without settings.")
        ctx.default_map = {recorded["command"]: recorded["settings"]}


def _file(**more: Any) -> click.Path:
    return click.Path(exists=True, dir_okay=False, **more)


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that all commands with data have."""
    for option in (
        click.option("--record", type=click.Path(dir_okay=False), help="Write what was run here."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else."),
        click.option("--download", is_flag=True, help="Let TensorFlow Datasets fetch a set."),
        click.option("--seed", default=0, show_default=True, help="Of everything random."),
        click.option(
            "--input-range",
            type=(Number(), Number()),
            help="Lowest and highest input of the model [that of a hardened model, or 0 1].",
        ),
    ):
        function = option(function)
    return function


@main.command()
@click.argument("model", type=_file())
@click.argument("data")
@click.option("--out", default="robust.keras", show_default=True, help="The .keras file to write.")
@click.option("--epsilon", type=Number(), help="Radius to withstand [8/255 of the range].")
@click.option(
    "--recipe",
    type=click.Choice(["balanced", "fast", "interpretable"]),
    default="balanced",
    show_default=True,
)
@click.option("--epochs", default=10, show_default=True)
@click.option("--batch-size", default=128, show_default=True)
@click.option("--learning-rate", type=Number(), default=1e-3, show_default=True)
@click.option(
    "--validation",
    type=Number(),
    default=0.1,
    show_default=True,
    help="Share of the training images to validate on after each epoch.",
)
@common
def harden(
    model: str,
    data: str,
    out: str,
    epsilon: float | None,
    recipe: Any,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    validation: float,
    **options: Any,
) -> None:
    """Train MODEL on DATA so that it withstands adversarial examples.

    MODEL is a .keras file, trained or new; Adam with a cosine decay trains all of it that
    is trainable. The hardened model is loaded as any other: keras.models.load_model.

    \b
    keras-jsigr harden net.keras photos/ --epsilon 4/255 --epochs 20 --learning-rate 5e-4
    """
    run = Run("harden", options)
    net = load_model(model)
    images = run.read(data, net)
    keras.utils.set_random_seed(options["seed"])
    robust = kj.harden(
        net, epsilon, recipe, input_range=run.range, seed=options["seed"], verbose=run.verbose
    )
    logits = robust.head.kind == "linear"
    binary = robust.head.kind == "sigmoid" or robust.classes == 1
    name = "BinaryCrossentropy" if binary else "SparseCategoricalCrossentropy"
    y = images.y_train
    if binary and robust.classes > 1:
        y = np.eye(robust.classes)[y]
    # The order of a file may be that of its classes.
    order = np.random.default_rng(options["seed"]).permutation(len(y))
    held, kept = np.split(
        order, [round(arguments.share("validation", validation, ends="[)") * len(y))]
    )
    steps = epochs * -(-len(kept) // batch_size)
    robust.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps)),
        getattr(keras.losses, name)(from_logits=logits),
        metrics=["accuracy"],
    )
    robust.fit(
        images.x_train[kept],
        y[kept],
        epochs=epochs,
        batch_size=batch_size,
        validation_data=(images.x_train[held], y[held]) if len(held) else None,
        verbose=run.verbose,
    )
    robust.save(out)
    x_test, y_test, measured = images.x_test, images.y_test, "test"
    if x_test is images.x_train:  # a file of `x` and `y` alone
        rows, measured = (held, "validation") if len(held) else (kept, "training")
        x_test, y_test = x_test[rows], y_test[rows]
    run.tell(
        {
            "model": out,
            "epsilon": robust.epsilon,
            "recipe": recipe,
            "images": len(kept),
            "accuracy": accuracy(robust, x_test, y_test),
            "measured_on": f"{len(y_test)} {measured} images",
        },
        f"{out}: {{accuracy:.1%}} of {{measured_on}} right. Next: keras-jsigr evaluate {out} "
        + (data if measured == "test" else "TEST_DATA"),
    )


@main.command()
@click.argument("model", type=_file())
@click.argument("data")
@click.option("--attack", "name", type=click.Choice(ATTACKS), default="pgd")
@click.option("--epsilon", type=Number(), help="Radius [that of a hardened model].")
@click.option("--steps", type=int, help="Of an attack that has steps.")
@click.option("--images", default=500, show_default=True, help="How many to attack.")
@click.option("--levels", type=int, help="Values of an input: 256 for images of 8 bits.")
@click.option(
    "--out", help="An .npz file of x and y, or a folder of PNG files (with --levels 256)."
)
@common
def attack(
    model: str,
    data: str,
    name: str,
    epsilon: float | None,
    steps: int | None,
    images: int,
    levels: int | None,
    out: str | None,
    **options: Any,
) -> None:
    """Attack MODEL on the test images of DATA with one attack.

    \b
    keras-jsigr attack robust.keras photos/ --attack pgd --epsilon 8/255 --out adversarial.npz
    keras-jsigr attack robust.keras photos/ --levels 256 --out adversarial/
    """
    run = Run("attack", options)
    arrays = out is not None and Path(out).suffix == ".npz"
    if out is not None and not arrays and levels != 256:
        raise ValueError(f"--out {out} is a folder of PNG files: got no --levels 256, expected it.")
    net = load_model(model)
    _, _, x, y, names, _ = run.read(data, net)
    x, y = run.rounded(x[:images], levels), y[:images]
    settings: dict[str, Any] = {"epsilon": epsilon, "steps": steps, "levels": levels}
    settings |= {"input_range": run.range, "seed": options["seed"]}
    given = {key: value for key, value in settings.items() if value is not None}
    adversarial = np.asarray(suite.named_attack(name, **given, verbose=run.verbose)(net, x, y))
    if out is not None and arrays:
        write_arrays(out, x=adversarial, y=y)
    elif out is not None:
        titles = [f"{names[k] if names else k}/{n}" for n, k in enumerate(y)]
        kj.attacks.save_images(out, adversarial, run.range_of(net), names=titles)
    moved = np.abs(adversarial - x).reshape(len(x), -1).max(-1)
    run.tell(
        {
            "attack": name,
            "images": len(x),
            "clean_accuracy": accuracy(net, x, y),
            "accuracy": accuracy(net, adversarial, y),
            "largest_change": float(moved.max()),
            "out": out,
        },
        "{clean_accuracy:.1%} of {images} images right, {accuracy:.1%} under {attack}",
    )


@main.command()
@click.argument("model", type=_file())
@click.argument("data")
@click.option("--epsilon", type=Number(), help="Radius [that of a hardened model].")
@click.option(
    "--attack", "names", multiple=True, type=click.Choice(ATTACKS),
    help="Instead of the standard suite; several times for several.",
)  # fmt: skip
@click.option("--images", default=1000, show_default=True, help="How many to evaluate on.")
@click.option("--out", "outs", multiple=True, help="A report: .html, .json, .md or .png.")
@click.option("--resume", help="A folder with which a killed evaluation goes on.")
@click.option("--diagnostics/--no-diagnostics", default=True, help="Look for gradient masking.")
@click.option("--levels", type=int, help="Values of an input: 256 for images of 8 bits.")
@click.option("--fail-under", type=Number(), help="Exit with 1 if fewer are right under attack.")
@common
def evaluate(
    model: str,
    data: str,
    epsilon: float | None,
    names: tuple[str, ...],
    images: int,
    outs: tuple[str, ...],
    resume: str | None,
    diagnostics: bool,
    levels: int | None,
    fail_under: float | None,
    **options: Any,
) -> None:
    """Measure how robust MODEL is on the test images of DATA, and write reports.

    \b
    keras-jsigr evaluate robust.keras photos/ --out report.html --out report.json
    keras-jsigr evaluate robust.keras photos/ --attack pgd --fail-under 0.5 --json
    """
    run = Run("evaluate", options)
    net = load_model(model)
    data_read = run.read(data, net)
    report = kj.evaluate_robustness(
        net,
        run.rounded(data_read.x_test[:images], levels),
        data_read.y_test[:images],
        epsilon,
        input_range=run.range,
        attacks=list(names) or "standard",
        diagnostics=diagnostics,
        levels=levels,
        resume=resume,
        class_names=data_read.class_names,
        seed=options["seed"],
        verbose=run.verbose,
    )
    for path in outs:
        report.save(path)
    if not run.as_json:
        click.echo(report.summary())
    threat = report.threat_model
    run.tell(
        {
            "clean_accuracy": report.clean.accuracy,
            "robust_accuracy": report.robust.accuracy,
            "attacks": [each.name for each in report.attacks],
            "norm": threat["norm"],
            "epsilon": threat["epsilon"],
            "images": report.data["images"],
            "errors": len(report.errors),
            "reports": list(outs),
        },
    )
    failed = [each.name for each in report.attacks if each.error]
    if fail_under is not None and failed:
        raise ValueError(f"--fail-under judges finished attacks: got errors in {failed}.")
    if fail_under is not None and report.robust.accuracy < fail_under:
        click.echo(
            f"{report.robust.accuracy:.1%} right under attack, less than {fail_under:.1%}", err=True
        )
        sys.exit(BELOW)


@main.command()
@click.argument("model", type=_file())
@click.argument("data")
@click.option("--method", type=click.Choice(METHODS), default="gradient", show_default=True)
@click.option("--images", default=8, show_default=True, help="How many, from the first.")
@click.option("--out", default="maps.png", show_default=True, help="A .png picture or .npz arrays.")
@common
def explain(model: str, data: str, method: str, images: int, out: str, **options: Any) -> None:
    """Draw saliency maps: what MODEL looks at in the test images of DATA.

    \b
    keras-jsigr explain robust.keras photos/ --method occlusion --out maps.png
    """
    run = Run("explain", options)
    net = load_model(model)
    read = run.read(data, net)
    x, y = read.x_test[:images], read.y_test[:images]
    maps = np.asarray(kj.explain(net, x, method=method))
    if Path(out).suffix == ".npz":
        write_arrays(out, x=x, y=y, maps=maps)
    else:
        figure = kj.plot_saliency(
            x,
            {method: maps},
            y,
            None if is_logits(net) else net.predict(x, verbose=0),
            class_names=read.class_names,
            input_range=run.range_of(net),
        )
        figure.savefig(out)
    run.tell({"out": out, "method": method, "images": len(x)}, "{out}: {images} maps by {method}")


@main.command()
@click.argument("model", type=_file())
@click.argument("out")
@click.option(
    "--format",
    type=click.Choice(["tf_saved_model", "litert", "onnx", "openvino"]),
    default="tf_saved_model",
    show_default=True,
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier export.")
@common
def export(model: str, out: str, format: str, overwrite: bool, **options: Any) -> None:
    """Write hardened MODEL for a server: predictions, logits and explanations.

    \b
    keras-jsigr export robust.keras served/photos/1
    keras-jsigr export robust.keras robust.tflite --format litert
    """
    run = Run("export", options)
    net = load_model(model)
    if not heads.is_hardened(net):
        raise ValueError(
            f"'{model}' is not hardened: got a {type(net).__name__}. Export it with Keras: "
            "keras.models.load_model(...).export(...)."
        )
    made = net.export(out, format=format, overwrite=overwrite, verbose=0)
    run.tell({"out": out, "format": format, "model_card": str(made)}, "wrote {out}")


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the model card as JSON.")
def verify(folder: str, as_json: bool) -> None:
    """Check that the files of an export are those that its model card tells of.

    \b
    keras-jsigr verify served/photos/1
    """
    card = kj.serving.verify(folder)
    if as_json:
        click.echo(files.json_text(card), nl=False)
        return
    threat = card["threat_model"]
    click.echo(f"{folder}: {len(card['files'])} files as exported on {card['created']}")
    click.echo(
        f"{card['name']}, {card['classes']} classes, radius {threat.get('epsilon') or 0:.4g}"
    )


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def datasets(as_json: bool) -> None:
    """List the data sets on this machine; nothing is downloaded."""
    found = kj.datasets.available()
    if as_json:
        click.echo(files.json_text(found), nl=False)
        return
    for name, source in found.items():
        click.echo(f"{name:24s} {source}")


@main.command()
@click.option("--out", default="quickstart", show_default=True, help="The folder to write to.")
@click.option("--epochs", default=5, show_default=True)
@click.pass_context
def quickstart(ctx: click.Context, out: str, epochs: int) -> None:
    """Harden a small network on Fashion-MNIST, then attack, explain and export it."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    convolutions = [
        layers.Conv2D(filters, 4, 2, padding="same", activation="silu") for filters in (16, 32)
    ]
    head = [layers.Flatten(), layers.Dense(100, "silu"), layers.Dense(10, "softmax")]
    net = keras.Sequential([keras.Input((28, 28, 1)), *convolutions, *head])
    plain, robust = str(folder / "plain.keras"), str(folder / "robust.keras")
    net.save(plain)
    data, served = "fashion_mnist", folder / "served" / "1"
    ctx.invoke(
        harden, model=plain, data=data, out=robust, epsilon=0.1, epochs=epochs, learning_rate=2e-3
    )
    ctx.invoke(attack, model=robust, data=data)
    ctx.invoke(explain, model=robust, data=data, out=str(folder / "maps.png"))
    ctx.invoke(export, model=robust, out=str(served), overwrite=True)
    ctx.invoke(verify, folder=str(served))


class Run:
    """What the commands share: options, data, and the way results are told."""

    def __init__(self, command: str, options: dict[str, Any]) -> None:
        self.as_json: bool = options["as_json"]
        self.verbose: Literal[0, 1] = 0 if self.as_json else 1
        self.range: tuple[float, float] | None = options["input_range"]
        self._download: bool = options["download"]
        self._record: str | None = options["record"]
        self._command, self._started = command, time.perf_counter()
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        importlib.import_module("keras_jsigr")  # Keras loads hardened models by it
        if self.as_json:
            keras.config.disable_interactive_logging()

    def range_of(self, net: Any) -> tuple[float, float]:
        """Return the range of inputs: what was said, else what a hardened model knows."""
        if self.range is None:
            self.range = heads.known_input_range(net) or (0.0, 1.0)
        return self.range

    def rounded(self, x: Array, levels: int | None) -> Array:
        """Round images to a number of values, as resized ones of files are not."""
        if levels is None or self.range is None:
            return x
        (low, high), steps = self.range, max(levels, 2) - 1
        places = np.round((x - low) * (steps / (high - low)))
        return (low + places * ((high - low) / steps)).astype(x.dtype)

    def read(self, source: str, net: Any) -> Images:
        """Read images by a folder, a file or a name, in the shape and range of a model."""
        low, high = self.range_of(net)
        path, shape = Path(source).expanduser(), net.input_shape[1:]
        if path.suffix == ".npz":
            return read_arrays(path, shape)
        if path.is_dir():
            if len(shape) != 3 or None in shape:
                raise ValueError(
                    f"A folder of images is for models of images of one size: got inputs {shape}. "
                    "Make an .npz file of arrays."
                )
            modes = {1: "grayscale", 3: "rgb", 4: "rgba"}
            data = kj.datasets.from_folder(
                path,
                (shape[0], shape[1]),
                color_mode=modes.get(shape[2], "rgb"),  # type: ignore[arg-type]
                verbose=not self.as_json,
            )
        else:
            data = kj.datasets.load(source, download=self._download, verbose=not self.as_json)
        (x, y), (x_test, y_test) = data.as_tuples()
        x, x_test = (low + (high - low) * part for part in (x, x_test))
        return Images(x, y, x_test, y_test, list(data.class_names), data.source)

    def tell(self, result: dict[str, Any], sentence: str = "") -> None:
        """Print the result as JSON or in a sentence, and record the run."""
        result = {**result, "seconds": round(time.perf_counter() - self._started, 1)}
        if self.as_json:
            click.echo(files.json_text(result), nl=False)
        elif sentence:
            click.echo(sentence.format(**result))
        if self._record is not None:
            given = {
                name: value
                for name, value in click.get_current_context().params.items()
                if name != "record" and value is not None
            }
            record = {"command": self._command, "settings": given, "result": result}
            files.write_whole(Path(self._record), (files.json_text(record)).encode())


def read_arrays(path: Path, shape: tuple[int | None, ...]) -> Images:
    """Read an .npz file with training and test arrays, or with `x` and `y` alone."""
    with np.load(path, allow_pickle=False) as file:
        names = set(file.files)
        if {"x_train", "y_train", "x_test", "y_test"} <= names:
            parts = [file[name] for name in ("x_train", "y_train", "x_test", "y_test")]
        elif {"x", "y"} <= names:
            parts = [file["x"], file["y"]] * 2
        else:
            raise ValueError(
                f"'{path}' has the arrays {sorted(names)}: expected x_train, y_train, x_test and "
                "y_test, or x and y."
            )
        titles = [str(name) for name in file["class_names"]] if "class_names" in names else None
    for x, y in zip(parts[::2], parts[1::2], strict=True):
        if len(x.shape[1:]) != len(shape) or any(
            want not in (None, got) for want, got in zip(shape, x.shape[1:], strict=True)
        ):
            raise ValueError(f"'{path}': got inputs {x.shape[1:]}, expected {shape} of the model.")
        if y.shape not in ((len(x),), (len(x), 1)) or y.dtype.kind not in "iu":
            raise ValueError(
                f"'{path}': got labels of shape {y.shape} and dtype {y.dtype}, expected "
                f"{len(x)} integers. Save numbers of classes, of one-hot rows `y.argmax(-1)`."
            )
    x, y = parts[0].astype(np.float32), parts[1].reshape(-1)
    if parts[2] is parts[0]:
        return Images(x, y, x, y, titles, str(path))
    return Images(x, y, parts[2].astype(np.float32), parts[3].reshape(-1), titles, str(path))


def load_model(path: str) -> Any:
    """Load a model file in Keras' safe mode."""
    return keras.models.load_model(path)


def write_arrays(path: str, **arrays: Any) -> None:
    """Write an .npz file, whole or not at all."""
    with files.atomic_write(Path(path)) as file:
        np.savez_compressed(file, **arrays)


def is_logits(net: Any) -> bool:
    """Tell whether `predict` returns logits."""
    if heads.is_hardened(net):
        return bool(net.head.kind == "linear")
    return getattr(net.layers[-1], "activation", None) is keras.activations.linear


def accuracy(net: Any, x: Array, y: Array) -> float:
    """Return the share of examples that a model decides right."""
    right = batching.classified_rightly(batching.predict_logits(net, x), y)
    return round(float(right.mean()), 4)
