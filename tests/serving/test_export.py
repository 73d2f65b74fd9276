"""What `export` leaves behind: a model, a card, and nothing half-written."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr import JSIGRConfig, JSIGRModel
from keras_jsigr.core.scores import class_score, class_targets
from keras_jsigr.saliency import PerturbationCache, gradient_map
from keras_jsigr.saliency.cache import MapTable
from keras_jsigr.serving import export, read_model_card
from keras_jsigr.serving.endpoints import make_endpoints, named_inputs

L = keras.layers
PLAIN = JSIGRConfig(selection="none")


@pytest.fixture(scope="module")
def model() -> JSIGRModel:
    net = keras.Sequential(
        [keras.Input((4,), name="x"), L.BatchNormalization(), L.Dense(3)], name="net"
    )
    return JSIGRModel(net, PLAIN)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_card(served: Any) -> None:
    card = read_model_card(served["token"].card)
    assert card == read_model_card(served["token"].card.parent)
    assert card["settings"]["selection"] == "none"
    assert card["adversary"] is None
    assert card["classes"] == 3
    assert card["head"] == {"layer": "softmax", "decision": "softmax"}
    assert card["input_range"] == [0.0, 1.0]
    assert card["parameters"] == served["token"].model.base.count_params()
    assert len(card["weights_sha256"]) == 64
    assert card["inputs"] == [
        {"name": "image", "dtype": "float32", "shape": [None, 5, 3]},
        {"name": "token_ids", "dtype": "int32", "shape": [None, 2]},
    ]
    assert list(card["endpoints"]) == ["serving_default", "logits", "explain", "serve"]
    outputs = {o["name"]: o for o in card["endpoints"]["explain"]["outputs"]}
    assert outputs["saliency"]["shape"] == [None, 5]
    assert outputs["class"]["dtype"] == "int64"
    assert "implemented from the abstract of arXiv 2207.13036" in str(card["method"])
    assert set(card["versions"]) == {
        "keras_jsigr", "keras", "tensorflow", "numpy", "python",
    }  # fmt: skip
    assert card["threat_model"]["evaluated"] is False
    assert card["threat_model"]["epsilon"] is None


def test_fingerprint_follows_the_weights(served: Any) -> None:
    prints = {read_model_card(c.card)["weights_sha256"] for c in served.values()}
    assert len(prints) == len(served)


def test_export_changes_nothing(model: JSIGRModel, tmp_path: Path) -> None:
    x = np.ones((2, 4), "float32")
    before = [model.base.get_config(), *model.base.get_weights(), model(x).numpy()]
    model.export(tmp_path / "out", verbose=0)
    after = [model.base.get_config(), *model.base.get_weights(), model(x).numpy()]
    assert before[0] == after[0]
    for a, b in zip(before[1:], after[1:], strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_exporter_of_keras_itself_serves_the_base(model: JSIGRModel, tmp_path: Path) -> None:
    """As a tool does that asks no class for its own `export`."""
    keras.Model.export(model, tmp_path / "out", verbose=False)
    x = np.random.default_rng(0).uniform(size=(3, 4)).astype("float32")
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    np.testing.assert_allclose(loaded.serve(x), model.base(x), atol=1e-6)


def test_threat_model_and_overwrite(model: JSIGRModel, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "deep" / "1"
    card = export(model, target)
    assert card == target / "model_card.json"
    assert "serving_default" in capsys.readouterr().out
    (target / "stale.txt").write_text("old")
    with pytest.raises(ValueError, match="overwrite=True"):
        export(model, target, verbose=0)
    statement = {"epsilon": 0.1, "evaluated": True, "attacks": ["PGD-50"]}
    export(model, target, threat_model=statement, overwrite=True, verbose=0)
    found = read_model_card(target)["threat_model"]
    assert found["epsilon"] == 0.1
    assert found["evaluated"] is True
    assert found["attacks"] == ["PGD-50"]
    assert found["norm"] == "linf"
    assert not (target / "stale.txt").exists()
    assert names(target.parent) == ["1"]
    # Keras before 3.9 prints a line of its own.
    assert "keras_jsigr:" not in capsys.readouterr().out


def test_foreign_folders_and_files_are_never_replaced(model: JSIGRModel, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="earlier export"):
        export(model, precious, overwrite=True)
    with pytest.raises(ValueError, match="got a file"):
        export(model, precious / "thesis.txt", overwrite=True)
    assert names(tmp_path) == ["precious"]


@pytest.mark.parametrize(("where", "earlier"), [("write", True), ("card", False), ("rename", True)])
def test_a_crash_leaves_everything_as_it_was(
    model: JSIGRModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    earlier: bool,
) -> None:
    target = tmp_path / "1"
    if earlier:
        target.mkdir()
        (target / "saved_model.pb").write_bytes(b"earlier")

    def crash(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    if where == "write":
        monkeypatch.setattr("tensorflow.saved_model.save", crash)
    elif where == "card":
        monkeypatch.setattr(Path, "write_text", crash)
    else:
        replace = os.replace

        def no_new_names(source: Any, goal: Any) -> None:
            if str(source).endswith(".tmp"):
                crash()
            replace(source, goal)

        monkeypatch.setattr("os.replace", no_new_names)
    with pytest.raises(OSError, match="disk full"):
        export(model, target, overwrite=True, verbose=0)
    assert names(tmp_path) == (["1"] if earlier else [])
    if earlier:
        assert (target / "saved_model.pb").read_bytes() == b"earlier"


def test_bad_arguments(model: JSIGRModel, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="hardened"):
        export(model.base, tmp_path / "a")
    with pytest.raises(ValueError, match="log_prob"):
        export(model, tmp_path / "a", explain_score="loss")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a dict"):
        export(model, tmp_path / "a", threat_model=[1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="JSON"):
        export(model, tmp_path / "a", threat_model={"epsilon": np.ones(2)})
    for signature in (tf.TensorSpec((None, 5)), tf.TensorSpec((None, 4), "int32"), []):
        with pytest.raises(ValueError, match="does not fit the model"):
            export(model, tmp_path / "a", input_signature=signature)
    assert names(tmp_path) == []


def test_read_model_card_refuses_what_is_none(served: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model card"):
        read_model_card(tmp_path)
    path = tmp_path / "model_card.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="no model card"):
        read_model_card(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="no complete"):
        read_model_card(path)
    card = read_model_card(served["plane"].card)
    path.write_text(json.dumps({**card, "threat_model": None}))
    with pytest.raises(ValueError, match="threat_model"):
        read_model_card(path)
    path.write_text(json.dumps({**card, "format": 99}))
    with pytest.raises(ValueError, match="Update"):
        read_model_card(path)


def test_names_are_unique_and_legal() -> None:
    specs = [tf.TensorSpec((None,), name=n) for n in ("a/b", "a_b", "1x", None, "größe")]
    assert [s.name for s in named_inputs(specs)] == [
        "a_b",
        "a_b_1",
        "inputs_1x",
        "inputs",
        "gr__e",
    ]


def grey(**settings: Any) -> JSIGRModel:
    net = keras.Sequential([keras.Input((6, 7)), L.Flatten(), L.Dense(3)])
    return JSIGRModel(net, PLAIN, **settings)


def test_the_layout_says_what_a_map_keeps() -> None:
    x = tf.random.stateless_uniform((2, 6, 7), (0, 0))
    model = grey()
    found = make_endpoints(model)["explain"](x)["saliency"]
    assert found.shape == (2, 6)
    found = make_endpoints(model, layout="image")["explain"](x)["saliency"]
    expected = gradient_map(model, x, layout="image")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    maps = PerturbationCache.build(model, x, grid=2, layout="image", verbose=0)
    cached = grey(map_table=MapTable.from_cache(maps))
    assert make_endpoints(cached)["explain"](x)["saliency"].shape == (2, 6, 7)
    with pytest.raises(ValueError, match=r"[Nn]ame the layout"):
        make_endpoints(model, layout="features")


def test_a_folder_of_the_user_is_read_where_it_was_written(
    model: JSIGRModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    export(model, "~/served/1", verbose=0)
    assert read_model_card("~/served/1")["classes"] == 3


def test_multilabel_logits_are_known_by_their_loss() -> None:
    net = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    model = JSIGRModel(net, PLAIN)
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    x = np.ones((2, 4), "float32")
    answer = make_endpoints(model)["serving_default"](x)
    assert answer["class"].shape == (2, 3)
    np.testing.assert_allclose(answer["probabilities"], 1 / (1 + np.exp(-net(x))), 1e-5)


class Mine:
    """An adversary that cannot be serialized."""

    def perturb(self, logits_fn: Any, x: Any, y: Any, seed: Any) -> Any:
        return x


def test_an_adversary_is_on_the_card(tmp_path: Path) -> None:
    net = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    model = JSIGRModel(net, PLAIN, adversary=kj.attacks.FGSM(epsilon=0.1))
    adversary = read_model_card(export(model, tmp_path / "1", verbose=0))["adversary"]
    assert adversary["class_name"].endswith("FGSM")
    assert adversary["config"]["epsilon"] == 0.1
    model = JSIGRModel(net, PLAIN, adversary=Mine())
    adversary = read_model_card(export(model, tmp_path / "2", verbose=0))["adversary"]
    assert adversary == {"class_name": "Mine"}


def test_the_card_tells_radius_range_and_the_weights_of_the_training(
    tmp_path: Path,
) -> None:
    net = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    robust = kj.harden(net, epsilon=8.0, input_range=(0.0, 255.0), verbose=0)
    robust.selective_weight.assign(0.3)
    card = read_model_card(robust.export(tmp_path / "1", verbose=0))
    settings, threat = card["settings"], card["threat_model"]
    assert settings["selective_weight"] == 0.3
    assert settings["steps_taken"] == 0
    own = {k: v for k, v in settings.items() if k in robust.config.get_config()}
    kept = {"selective_weight": 0.3, "jacobian_weight": settings["jacobian_weight"]}
    assert JSIGRConfig.from_config(own) == robust.config.replace(**kept)
    assert settings["jacobian_weight"] == pytest.approx(robust.config.jacobian_weight)
    assert threat["epsilon"] == 8.0
    assert threat["norm"] == "linf"
    assert threat["input_range"] == card["input_range"] == [0.0, 255.0]
    assert threat["evaluated"] is False
    assert "No robustness was measured" in threat["note"]


def test_threads_that_fit_and_predict_notice_nothing_of_an_export(
    tmp_path: Path,
) -> None:
    """With a learning rate of zero every answer is the one of before."""
    net = keras.Sequential(
        [keras.Input((4,)), L.Dense(8, activation="silu"), L.Dense(3, "softmax")]
    )
    model = JSIGRModel(net, PLAIN)
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    x, y = np.random.default_rng(0).uniform(size=(64, 4)).astype("float32"), np.ones(64)
    expected = np.asarray(net(x))
    answers, losses, stop = [], [], threading.Event()

    def predict() -> None:
        while not stop.is_set():
            answers.append(np.asarray(net(x)))

    def fit() -> None:
        while not stop.is_set():
            losses.extend(model.fit(x, y, verbose=0).history["task_loss"])

    threads = [threading.Thread(target=predict), threading.Thread(target=fit)]
    for thread in threads:
        thread.start()
    try:
        for number in range(2):
            export(model, tmp_path / str(number), verbose=0)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert all(np.array_equal(answer, expected) for answer in answers)
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
    assert net.layers[-1].activation is keras.activations.softmax
    for number in range(2):
        loaded = tf.saved_model.load(str(tmp_path / str(number)))
        function = loaded.signatures["serving_default"]
        served = function(**{next(iter(function.structured_input_signature[1])): x})
        np.testing.assert_allclose(served["probabilities"], expected, atol=1e-6)


NAMES = [
    "softmax", "linear", "binary", "multilabel", "plane", "token", "pair",
    "subclassed", "half",
]  # fmt: skip


SIZES = (1, 7)


def near(case: Any, got: np.ndarray, want: Any) -> None:
    # A compiled float16 net rounds in other places than an eager one.
    tolerance = 5e-3 if case.name == "half" else 1e-5
    want = np.asarray(want)
    assert got.shape == want.shape, case.name
    np.testing.assert_allclose(got, want, 0, tolerance, err_msg=case.name)


def test_decision_and_logits(served: Any) -> None:
    for name in NAMES:
        for size in SIZES:
            check_decision_and_logits(served[name], name, size)


def check_decision_and_logits(case: Any, name: str, size: int) -> None:
    x = case.inputs(size)
    outputs = np.asarray(case.model.base(x, training=False), "float32")
    if case.model.head.kind == "linear":
        outputs = np.asarray(tf.nn.softmax(outputs))
    for endpoint in ("serving_default", "explain"):
        near(case, case.answers[f"{endpoint}/probabilities/{size}"], outputs)
        decided = case.answers[f"{endpoint}/class/{size}"]
        assert decided.dtype == np.int64
        want = {
            "binary": outputs[:, 0] > 0.5,
            "multilabel": outputs > 0.5,
        }.get(name, outputs.argmax(-1))
        np.testing.assert_array_equal(decided, want)
    logits = tf.cast(case.model.logits(x), "float32")
    near(case, case.answers[f"logits/logits/{size}"], logits)


def test_saliency_is_the_gradient_map(served: Any) -> None:
    for name in ("softmax", "binary", "multilabel", "subclassed", "half"):
        check_saliency(served[name], name, 7)


def check_saliency(case: Any, name: str, size: int) -> None:
    x = case.inputs(size)
    kind = "sigmoid" if case.model.head.kind == "sigmoid" else "softmax"
    if name == "binary":  # `gradient_map` sees one unit as two columns
        kind = "softmax"
    want = gradient_map(case.model, x, kind=kind)
    got = case.answers[f"explain/saliency/{size}"]
    assert got.dtype == np.float32
    near(case, got, want)
    if len(x.shape) == 4:
        assert got.shape == (size, 6, 6)


def test_saliency_of_a_linear_model_in_numpy(served: Any) -> None:
    """`d log p_y / dx = W (onehot(y) - p)`."""
    case = served["plane"]
    kernel, bias = (np.asarray(w, "float64") for w in case.model.base.get_weights())
    x = next(iter(case.request.values())).astype("float64")
    z = x @ kernel + bias
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    want = np.abs((np.eye(3)[z.argmax(-1)] - p) @ kernel.T)
    np.testing.assert_allclose(case.answers["explain/saliency/7"], want, atol=1e-6)


def test_confident_saliency_survives_float16_layers() -> None:
    """`1 - p` of 1e-7 at the logits is nothing in float16."""
    keras.utils.set_random_seed(0)

    def net(body: str, head: str) -> keras.Model:
        hidden = keras.layers.Dense(8, activation="silu", dtype=body)
        last = keras.layers.Dense(3, activation="softmax", dtype=head)
        return keras.Sequential([keras.Input((6,)), hidden, last])

    full, half = net("float32", "float32"), net("mixed_float16", "float32")
    full.layers[-1].bias.assign([16.0, 0.0, 0.0])
    half.set_weights(full.get_weights())
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    want = gradient_map(full, x)
    assert 0 < want.max() < 1e-5
    got = make_endpoints(JSIGRModel(half))["explain"](tf.constant(x))["saliency"]
    # Logits of 16 are off by 1e-2 in float16, so is `1 - p`.
    np.testing.assert_allclose(got, want, rtol=0.05, atol=0.03 * want.max())


def test_saliency_of_several_inputs(served: Any) -> None:
    for name in ("token", "pair"):
        check_saliency_of_each_input(served[name], name)


def check_saliency_of_each_input(case: Any, name: str) -> None:
    x = case.inputs(7)
    leaves = keras.tree.flatten(x)
    floats = [leaf for leaf in leaves if leaf.dtype.is_floating]
    with tf.GradientTape() as tape:
        tape.watch(floats)
        z = case.model.logits(x)
        y = class_targets(tf.argmax(z, -1), z)
        total = tf.reduce_sum(class_score(z, y))
    gradients = dict(
        zip(
            [key for key, v in case.request.items() if v.dtype.kind == "f"],
            tape.gradient(total, floats),
            strict=True,
        )
    )
    for key, gradient in gradients.items():
        want = tf.abs(gradient)
        want = tf.reduce_sum(want, -1) if want.shape.rank > 2 else want
        output = "saliency" if name == "token" else f"saliency_{key}"
        near(case, case.answers[f"explain/{output}/7"], want)
    outputs = {k.split("/")[1] for k in case.answers if k.startswith("explain/")}
    assert len(outputs) == 2 + len(gradients)


def test_no_file_of_the_model_names_this_package(served: Any) -> None:
    folder = served["softmax"].card.parent
    files = [f for f in folder.rglob("*") if f.is_file() and f.suffix != ".json"]
    assert len(files) >= 3
    for file in files:
        assert b"keras_jsigr" not in file.read_bytes(), file.name


def test_signatures_take_named_inputs_of_any_batch_size(served: Any) -> None:
    loaded = tf.saved_model.load(str(served["token"].card.parent))
    assert sorted(loaded.signatures) == [
        "explain",
        "logits",
        "serve",
        "serving_default",
    ]
    for function in loaded.signatures.values():
        specs = function.structured_input_signature[1]
        assert {k: (s.dtype.name, s.shape.as_list()) for k, s in specs.items()} == {
            "image": ("float32", [None, 5, 3]),
            "token_ids": ("int32", [None, 2]),
        }


def test_wrong_shapes_are_refused_and_an_empty_batch_has_an_empty_answer(
    served: Any,
) -> None:
    """Both once ended the process that serves, in a check of a kernel."""
    folder = served["softmax"].card.parent  # a convolution on (6, 6, 2)
    signatures = tf.saved_model.load(str(folder)).signatures
    for name, function in signatures.items():
        for shape in ((0,), (1, 72), (1, 3, 12, 2), (6, 6, 2)):
            with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible"):
                function(image=tf.zeros(shape))
        full = function(image=tf.zeros((1, 6, 6, 2)))
        empty = function(image=tf.zeros((0, 6, 6, 2)))
        for key, value in full.items():
            assert empty[key].shape == (0, *value.shape[1:]), (name, key)
            assert empty[key].dtype == value.dtype


def test_open_sides_take_any_size_but_none(tmp_path: Path) -> None:
    net = keras.Sequential(
        [
            keras.Input((None, None, 1), name="x"),
            L.Conv2D(2, 3, padding="same"),
            L.GlobalAveragePooling2D(),
            L.Dense(3),
        ]
    )
    model = JSIGRModel(net, PLAIN)
    export(model, tmp_path / "open", verbose=0)
    explain = tf.saved_model.load(str(tmp_path / "open")).signatures["explain"]
    assert explain(x=tf.zeros((2, 5, 7, 1)))["saliency"].shape == (2, 5, 7)
    assert explain(x=tf.zeros((0, 5, 7, 1)))["saliency"].shape == (0, 5, 7)
    with pytest.raises(tf.errors.InvalidArgumentError, match="empty side"):
        explain(x=tf.zeros((1, 0, 7, 1)))
    fixed = tf.TensorSpec((None, 5, 5, 1))
    card = export(model, tmp_path / "fixed", input_signature=fixed, verbose=0)
    assert read_model_card(card)["inputs"][0]["shape"] == [None, 5, 5, 1]
    explain = tf.saved_model.load(str(tmp_path / "fixed")).signatures["explain"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible"):
        explain(x=tf.zeros((2, 5, 7, 1)))


def test_tfsm_layer_takes_an_export_as_it_comes(served: Any) -> None:
    for name in ("softmax", "binary", "subclassed", "pair"):
        case = served[name]
        layer = keras.layers.TFSMLayer(case.card.parent)
        x = case.inputs(7)
        np.testing.assert_allclose(layer(x), case.model(x, training=False), atol=1e-6)


def test_urls_of_stores_are_refused(
    model: JSIGRModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("gs://b/m/1", "s3://b/m", "memory://m", Path("gs://b/m")):
        for settings in ({}, {"format": "litert"}):
            with pytest.raises(ValueError, match="URL of a store"):
                model.export(path, **settings)
    assert names(tmp_path) == []


def test_a_file_name_is_no_folder(model: JSIGRModel, tmp_path: Path) -> None:
    for name, format in (("m.onnx", "onnx"), ("m.tflite", "litert")):
        with pytest.raises(ValueError, match=f"Pass format='{format}'"):
            model.export(tmp_path / name)
    assert names(tmp_path) == []


def test_files_are_verified_by_the_card(model: JSIGRModel, tmp_path: Path) -> None:
    folder = tmp_path / "1"
    model.export(folder, verbose=0)
    assert kj.serving.verify(folder)["files"].keys() > {"saved_model.pb"}
    graph, card = folder / "saved_model.pb", folder / "model_card.json"
    whole, text = graph.read_bytes(), card.read_text(encoding="utf-8")
    graph.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (folder / "assets").mkdir(exist_ok=True)
    (folder / "assets" / "more.txt").write_text("x")
    with pytest.raises(ValueError, match=r"2 of .* assets/more.txt \(added\), saved_model.pb \(ch"):
        kj.serving.verify(folder)
    (folder / "assets" / "more.txt").unlink()
    graph.unlink()
    with pytest.raises(ValueError, match=r"saved_model.pb \(missing\)"):
        kj.serving.verify(folder)
    graph.write_bytes(whole)
    kj.serving.verify(folder)
    old = {name: part for name, part in json.loads(text).items() if name != "files"}
    card.write_text(json.dumps(old), encoding="utf-8")
    with pytest.raises(ValueError, match="without checksums"):
        kj.serving.verify(folder)


@pytest.fixture
def keras_export(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Let Keras' exporter write two small files, and return what it was asked."""
    asked = []

    def write(self: Any, filepath: str, format: str, **settings: Any) -> None:
        asked.append({"format": format, **settings})
        Path(filepath).write_bytes(self.name.encode())
        Path(filepath).with_suffix(".bin").write_bytes(b"weights")

    monkeypatch.setattr(keras.Sequential, "export", write)
    return asked


def test_other_formats_keep_files_and_refuse_settings(
    model: JSIGRModel, tmp_path: Path, keras_export: Any, capsys: Any
) -> None:
    path = tmp_path / "deep" / "m.onnx"
    assert model.export(path, format="onnx", opset_version=18) == path
    assert str(path) in capsys.readouterr().out
    assert keras_export == [{"format": "onnx", "verbose": False, "opset_version": 18}]
    assert path.read_bytes() == b"net"
    for format in ("onnx", "litert", "openvino"):
        with pytest.raises(ValueError, match="overwrite=True"):
            model.export(path, format=format)
        with pytest.raises(ValueError, match="name of a file"):
            model.export(tmp_path, format=format, overwrite=True)
        for unfit in ({"threat_model": {}}, {"explain_score": "margin"}):
            with pytest.raises(TypeError, match="bare model"):
                model.export(tmp_path / "a", format=format, **unfit)
        with pytest.raises(TypeError, match=r"no such settings: got \['typo'\]"):
            model.export(tmp_path / "a", format=format, typo=1)
    with pytest.raises(TypeError, match="typo"):
        model.export(tmp_path / "a", typo=1)
    path.unlink()  # the second file is kept too
    with pytest.raises(ValueError, match=r"m\.bin'"):
        model.export(path, format="onnx", verbose=0)
    assert names(path.parent) == ["m.bin"]
    model.export(path, format="onnx", overwrite=True, verbose=0)
    assert names(path.parent) == ["m.bin", "m.onnx"]
    assert names(tmp_path) == ["deep"]


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_tensorflow_lite_converts_a_hardened_model(tmp_path: Path) -> None:
    net = keras.Sequential([keras.Input((4,)), L.Dense(3, activation="softmax")])
    model = JSIGRModel(net, PLAIN)
    x = np.random.default_rng(0).uniform(size=(1, 4)).astype("float32")
    model.export(tmp_path / "m.tflite", format="litert", verbose=0)
    for content in (
        (tmp_path / "m.tflite").read_bytes(),
        tf.lite.TFLiteConverter.from_keras_model(model).convert(),
    ):
        lite = tf.lite.Interpreter(model_content=content)
        lite.allocate_tensors()
        lite.set_tensor(lite.get_input_details()[0]["index"], x)
        lite.invoke()
        got = lite.get_tensor(lite.get_output_details()[0]["index"])
        np.testing.assert_allclose(got, net(x), atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:In the future `np.object`")  # of tf2onnx
def test_onnx_answers_as_the_model(tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx", reason="tf2onnx is missing")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is missing")
    net = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            L.Conv2D(4, 3, strides=2, activation="silu"),
            L.Flatten(),
            L.Dense(3, activation="softmax"),
        ]
    )
    x = np.random.default_rng(0).uniform(size=(5, 8, 8, 1)).astype("float32")
    path = JSIGRModel(net, PLAIN).export(tmp_path / "m.onnx", format="onnx", verbose=0)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(got, net(x), atol=1e-5)
