"""Every kind of model, exported once and served once, in one foreign process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_jsigr import JSIGRConfig, JSIGRModel
from keras_jsigr.serving import export

L = keras.layers
SIZES = (1, 7)
SERVER = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "keras_jsigr":
            raise ImportError("keras_jsigr is not installed here")
sys.meta_path.insert(0, Absent())
try:
    import keras_jsigr
except ImportError:
    pass
else:
    sys.exit("keras_jsigr could be imported")
import numpy as np, tensorflow as tf
from pathlib import Path
for folder in sorted(Path(sys.argv[1]).iterdir()):
    loaded, answers = tf.saved_model.load(str(folder)), {}
    requests = np.load(folder.parent.parent / f"{folder.name}.npz")
    for size in (1, 7):
        batch = {k: tf.constant(requests[k][:size]) for k in requests.files}
        for endpoint, function in loaded.signatures.items():
            for key, value in function(**batch).items():
                answers[f"{endpoint}/{key}/{size}"] = value.numpy()
    np.savez(folder.parent.parent / f"{folder.name}-answers.npz", **answers)
assert "keras_jsigr" not in sys.modules
"""


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = L.Dense(5, activation="tanh")
        self.head = L.Dense(3, activation="softmax")

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.head(self.hidden(inputs))


def image_net(head: str | None, policy: str | None = None) -> keras.Model:
    """A small convolutional net with BatchNormalization and Dropout."""
    net = keras.Sequential(
        [
            keras.Input((6, 6, 2), name="image"),
            L.Conv2D(4, 3, activation="silu", dtype=policy),
            L.BatchNormalization(dtype=policy),
            L.Dropout(0.5, dtype=policy),
            L.Flatten(dtype=policy),
            L.Dense(3, dtype=policy),
            L.Activation(head or "linear", dtype=policy and "float32"),
        ]
    )
    rng = np.random.default_rng(3)
    norm = net.layers[1]
    norm.moving_mean.assign(rng.normal(size=4))
    norm.moving_variance.assign(rng.uniform(0.5, 2.0, 4))
    return net


def flat_net(units: int, head: str | None) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), L.Dense(units, activation=head)])


def image_and_token() -> keras.Model:
    image, token = (
        keras.Input((5, 3), name="image"),
        keras.Input((2,), dtype="int32", name="token-ids"),
    )
    both = L.Concatenate()(
        [L.Flatten()(L.Dense(2, "gelu")(image)), L.Flatten()(L.Embedding(9, 2)(token))]
    )
    return keras.Model([image, token], L.Dense(3, activation="softmax")(both))


def two_floats() -> keras.Model:
    left, right = keras.Input((3,), name="left"), keras.Input((4, 2), name="right")
    both = L.Concatenate()([L.Dense(2, "tanh")(left), L.Flatten()(right)])
    return keras.Model({"left": left, "right": right}, L.Dense(3)(both))


def subclassed() -> keras.Model:
    net = Subclassed()
    net(np.zeros((1, 4), "float32"))
    return net


@dataclass
class Case:
    name: str
    model: JSIGRModel
    request: dict[str, np.ndarray]
    card: Path
    answers: dict[str, np.ndarray]

    def inputs(self, size: int) -> Any:
        """The request as the model itself takes it."""
        import tensorflow as tf

        leaves = [tf.constant(v[:size]) for v in self.request.values()]
        return keras.tree.pack_sequence_as(self.model.input_specs, leaves)


def _models() -> dict[str, keras.Model]:
    keras.utils.set_random_seed(0)
    half = image_net("softmax", "mixed_float16")
    return {
        "softmax": image_net("softmax"),
        "linear": image_net(None),
        "binary": flat_net(1, "sigmoid"),
        "multilabel": flat_net(3, "sigmoid"),
        "plane": flat_net(3, None),
        "token": image_and_token(),
        "pair": two_floats(),
        "subclassed": subclassed(),
        "half": half,
    }


def _request(model: JSIGRModel) -> dict[str, np.ndarray]:
    from keras_jsigr.serving.endpoints import named_inputs

    rng = np.random.default_rng(1)
    request = {}
    for spec in named_inputs(model.input_specs):
        shape = (max(SIZES), *spec.shape[1:])
        if spec.dtype.is_floating:
            request[spec.name] = rng.uniform(size=shape).astype(spec.dtype.name)
        else:
            request[spec.name] = rng.integers(0, 9, shape).astype(spec.dtype.name)
    return request


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    root = tmp_path_factory.mktemp("served")
    cases = {}
    for name, base in _models().items():
        model = JSIGRModel(base, JSIGRConfig(selection="none"))
        if name == "softmax":  # a model that went through `.keras`
            model.compile("sgd", "sparse_categorical_crossentropy")
            model.save(root / "model.keras")
            model = keras.models.load_model(root / "model.keras")
        request = _request(model)
        np.savez(root / f"{name}.npz", **request)
        card = export(model, root / "models" / name, verbose=0)
        cases[name] = Case(name, model, request, card, {})
    done = subprocess.run(
        [sys.executable, "-I", "-c", SERVER, str(root / "models")],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, case in cases.items():
        with np.load(root / f"{name}-answers.npz") as answers:
            case.answers.update(answers)
    return cases
