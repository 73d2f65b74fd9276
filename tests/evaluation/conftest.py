"""Small networks, trained once, and landscapes whose answers are known."""

import base64
import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_jsigr import JSIGRConfig, datasets, harden
from keras_jsigr.attacks import PGD
from keras_jsigr.evaluation.gradient_masking_context import DiagnosticContext
from keras_jsigr.evaluation.records import (
    AttackRecord,
    ClassRecord,
    CurvePoint,
    ExampleRecord,
    Finding,
    LinearizedRecord,
    Rate,
    SaliencyFigure,
    SaliencyRecord,
    TransferRecord,
)
from keras_jsigr.evaluation.report import Report

EPSILON = 0.1


def build(side, seed=0):
    """conv4x4-s2(16, 32) + fc100, ReLU."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((side, side, 1)),
            layers.Conv2D(16, 4, strides=2, padding="same", activation="relu"),
            layers.Conv2D(32, 4, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(100, activation="relu"),
            layers.Dense(10),
        ]
    )


@pytest.fixture(scope="session")
def make_net():
    return build


@pytest.fixture(scope="session")
def data():
    return datasets.load("fashion_mnist", verbose=False)


@pytest.fixture(scope="session")
def test_set(data):
    return half_size(data.x_test[:120]), data.y_test[:120]


def half_size(x):
    """Means of 2x2 pixels, four times as fast."""
    return x.reshape(len(x), 14, 2, 14, 2, 1).mean((2, 4))


@pytest.fixture(scope="session")
def honest(data):
    """The same network, trained plainly, by PGD, and with J-SIGR."""

    def train(epochs, **settings):
        net = build(14)
        robust = harden(net, verbose=0, **settings)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        robust.compile(keras.optimizers.Adam(2e-3), loss)
        x, y = half_size(data.x_train[:1200]), data.y_train[:1200]
        robust.fit(x, y, epochs=epochs, batch_size=64, verbose=0)
        return robust

    mild = JSIGRConfig(check_gradients=False)
    off = mild.replace(jacobian_weight=0.0, selective_weight=0.0)
    adversary = PGD(epsilon=EPSILON, steps=2)
    return {
        "plain": train(8, recipe=off).base,
        "adversarial": train(8, recipe=off, adversary=adversary).base,
        "hardened": train(8, recipe=mild, warmup=20),
    }


@pytest.fixture(scope="session")
def context_of():
    """Put a model, examples and labels into a `DiagnosticContext`."""

    def make(model, x, y, epsilon=EPSILON, classes=None, **settings):
        classes = max(2, int(np.max(y)) + 1) if classes is None else classes
        settings = {"norm": "linf", "input_range": (0.0, 1.0), **settings}
        return DiagnosticContext(
            model=model, x=x, y=y, classes=classes, epsilon=epsilon, **settings
        )

    return make


@pytest.fixture(scope="session")
def landscape():
    """Make a classifier of one feature by what it loses at a distance from 0.5.

    Log odds against class 0 are piecewise linear through the knots and mirrored:
    positive where the model errs. The slope is that of the gradient everywhere.
    """

    def make(knots, values):
        slopes = np.diff(values) / np.diff(knots)
        bends = np.diff(slopes, prepend=0.0)

        def model(x):
            distance = tf.abs(x - 0.5)
            # Added one by one, so that rounding cannot smear a flat part.
            loss = tf.fill(tf.shape(x), tf.cast(values[0], x.dtype))
            for knot, bend in zip(knots[:-1], bends, strict=True):
                loss += bend * tf.nn.relu(distance - knot)
            return tf.concat([tf.zeros_like(loss), loss], axis=-1)

        return model

    return make


@pytest.fixture(scope="session")
def middle():
    """Examples at 0.5, all of class 0."""
    return np.full((200, 1), 0.5, "float32"), np.zeros(200, int)


CLASSES = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt"]
TITLES = (
    "image",
    "perturbation",
    "attacked image",
    "gradient map",
    "gradient map, attacked",
)


def _png(rng, colour=False):
    rows, columns = np.mgrid[-1:1:28j, -1:1:28j]
    centre = rng.uniform(-0.4, 0.4, 2)
    blob = np.exp(-4 * ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2))
    noise = rng.uniform(0, 0.2, blob.shape)
    pixels = np.clip(255 * (0.8 * blob + noise), 0, 255).astype("uint8")
    image = Image.fromarray(pixels)
    if colour:
        image = Image.merge("RGB", [image, image, Image.fromarray(255 - pixels)])
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _attacks(kept, config):
    names = ["APGD-CE", "APGD-T", "FAB-T", "Square", "Transfer (MI-FGSM)", "Noise"]
    access = ["white box"] * 3 + ["black box", "transfer", "noise"]
    shares = [kept + 40, kept + 12, kept + 3, kept, kept, kept]
    attacked = [920, *shares[:-1]]
    return [
        AttackRecord(
            name=name,
            access=access[i],
            config={"steps": 100 + i, "seed": 0, "norm": "linf", **config},
            attacked=attacked[i],
            broken=attacked[i] - shares[i],
            accuracy=Rate(shares[i], 1000),
            seconds=[41.3, 388.25, 95.0, 0.75, 7.5, 0.125][i],
            error="out of memory" if name == "Square" else None,
        )
        for i, name in enumerate(names)
    ]


def _transfer(name, others, kept):
    shares = {
        name: kept + 18,
        **{other: 700 + 31 * i for i, other in enumerate(others)},
    }
    return [
        TransferRecord(
            source=source,
            target=name,
            attack=attack,
            epsilon=epsilon,
            accuracy=Rate(int(share * (1 - epsilon + 0.1)), 1000),
            fingerprint=f"weights of {source}",
        )
        for attack in ("MI-FGSM", "NI-SI-TI-DIM")
        for epsilon in (0.05, 0.1)
        for source, share in shares.items()
    ]


def _findings(bad):
    says = "1.4 % of the gradients are zero, as few as an honest model shows."
    return [
        Finding(
            rule="zero_gradients",
            title="Gradients do not vanish",
            status="suspect" if bad else "ok",
            says="62.5 % of the gradients are exactly zero." if bad else says,
            figures={"share_zero": 0.625 if bad else 0.014, "examples": 1000.0},
            advice="Attack the logits and not the softmax." if bad else "",
        ),
        Finding(
            rule="transfer_beats_white_box",
            title="Transfer beats access",
            status="ok",
            says="Access to the model makes the attack stronger.",
            figures={"white_box": 0.43, "transfer": 0.7},
        ),
        Finding(
            rule="unbounded_attack",
            title="Unbounded attack succeeds",
            status="skipped",
            says="The largest radius of the curve covers only a part of the range.",
            figures={},
        ),
    ]


def _saliency():
    rows = [
        ("Faithfulness", "Deletion", "blur, by the map", "lower", 0.25, 0.05, 400),
        ("Faithfulness", "Deletion", "blur, random order", "", 0.5, 0.01, 400),
        ("Sparsity", "Gini index", "", "higher", 0.625, 0.002, 400),
        ("Stability", "SSIM", "PGD, class kept", "higher", None, None, 0),
        ("Stability", "Rank correlation", "noise", "higher", -0.125, None, 1),
    ]
    keys = ("group", "metric", "condition", "better", "mean", "error", "images")
    return SaliencyRecord(
        method="gradient",
        images=400,
        figures=[SaliencyFigure(**dict(zip(keys, row, strict=True))) for row in rows],
        findings=[
            Finding(
                rule="beats_controls",
                title="The maps name the pixels that matter",
                status="suspect",
                says="The order of the maps is no better than a random one.",
                figures={"by_the_map": 0.1, "random_order": 0.2},
                advice="Do not show these maps.",
            )
        ],
        settings={"attack_steps": 20, "method": {"score": "log_prob"}},
        seconds={"sanity": 1.5, "total": 30.0},
        errors=["sanity: ValueError: no weights"],
    )


def build_report(name="Hardened", *, kept=412, others=("Plain", "Wide"), bad=False):
    rng = np.random.default_rng(kept)
    radii = [0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2]
    fall = [920, *(int(920 - (920 - kept) * (e / 0.1)) for e in radii[1:])]
    examples = [
        ExampleRecord(
            index=int(rng.integers(1000)),
            label=CLASSES[i % 7],
            predicted=CLASSES[i % 7],
            adversarial=CLASSES[(i + 1 + i % 3) % 7],
            attack=["APGD-CE", "FAB-T"][i % 2],
            distance=0.031 + 0.005 * ((i * 5) % 8),
            pictures={title: _png(rng, i == 1) for title in TITLES},
        )
        for i in range(8)
    ]
    return Report(
        title=name,
        model={
            "name": name,
            "parameters": 123456,
            "classes": 7,
            "input_shape": [28, 28, 1],
            "hardened": not bad,
            "settings": {"jacobian_weight": 0.01},
        },
        threat_model={"norm": "linf", "epsilon": 0.1, "input_range": (0.0, 1.0)},
        data={"images": 1000, "fingerprint": "f00dfeed"},
        clean=Rate(920, 1000),
        robust=Rate(kept, 1000),
        attacks=_attacks(kept, {"input_range": [0.0, 1.0], "epsilon": 0.1}),
        classes=[
            ClassRecord(
                name=label,
                clean=Rate(130 + i, 140),
                robust=Rate(20 + (i * 29) % 70, 140),
            )
            for i, label in enumerate(CLASSES)
        ],
        curve=[
            CurvePoint(epsilon=e, accuracy=Rate(max(n, 12), 1000))
            for e, n in zip(radii, fall, strict=True)
        ],
        curve_attack={"name": "PGD", "config": {"steps": 40, "restarts": 2}},
        chance=0.15,
        transfer=_transfer(name, others, kept),
        linearized=LinearizedRecord(
            norm="linf",
            quantiles=[(0.1, 0.0123), (0.5, 0.0789), (0.9, 0.2345)],
            margin=3.21,
            gradient=40.5,
        ),
        findings=_findings(bad),
        examples=examples,
        settings={"epsilon": 0.1, "attacks": "standard", "seed": 17},
        versions={"python": "3.11.9", "tensorflow": "2.21.0", "keras": "3.15.1"},
        seconds={"suite": 532.9, "curve": 61.0, "total": 655.0},
        errors=[],
        saliency=_saliency(),
    )


def build_bare(title="Nothing but figures"):
    """Every optional part missing."""
    lists = ("attacks", "classes", "curve", "transfer", "findings", "examples")
    maps = ("model", "threat_model", "data", "curve_attack", "settings")
    empty = {part: {} for part in (*maps, "versions", "seconds")}
    empty |= {part: [] for part in (*lists, "errors")}
    return Report(
        title=title,
        clean=Rate(9, 10),
        robust=Rate(9, 10),
        chance=0.1,
        linearized=None,
        **empty,
    )


HOSTILE = (
    "\"'><script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>"
    "</style></title>{{ 7 * 7 }} |`$\\frac{ *a*_b_ [c](javascript:alert(1)) 模型"
    "\ud800\x07"
)


def _poisoned(value, key=""):
    """Replace every text of a document that may be chosen freely."""
    if isinstance(value, str):
        kept = key in ("status", "access", "better")
        return value if kept else f"{HOSTILE} {value}"
    if isinstance(value, list):
        return [_poisoned(item) for item in value]
    if isinstance(value, dict) and key == "pictures":
        return {f"{HOSTILE} {title}": data for title, data in value.items()}
    if isinstance(value, dict):
        free = key in ("config", "figures", "settings", "versions", "model", "seconds")
        extra = {HOSTILE: 1.5} if free and key != "versions" else {}
        return {k: _poisoned(item, k) for k, item in value.items()} | extra
    return value


@pytest.fixture(scope="session")
def hostile():
    document = _poisoned(build_report(bad=True).to_document())
    document["errors"] = [HOSTILE]
    pictures = document["examples"][0]["pictures"]
    pictures[HOSTILE] = "x' onerror='window.pwned = 3"
    return Report.from_document(document)


@pytest.fixture(scope="session")
def report():
    return build_report()


@pytest.fixture(scope="session")
def two_reports(report):
    return [report, build_report("Plain", kept=14, others=["Hardened"], bad=True)]


@pytest.fixture(scope="session")
def make_report():
    return build_report


@pytest.fixture(scope="session")
def bare():
    return build_bare()
