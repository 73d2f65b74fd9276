"""What `export` leaves behind: a model, a card, and nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_jsigr.model import JSIGRModel
from keras_jsigr.penalties import PenaltySettings
from keras_jsigr.saliency import MapTable, PerturbationCache, gradient_map
from keras_jsigr.serving import export, read_model_card
from keras_jsigr.serving.endpoints import make_endpoints, named_inputs
from keras_jsigr.serving.model_card import checked_threat_model

L = keras.layers


@pytest.fixture(scope="module")
def model() -> JSIGRModel:
    net = keras.Sequential(
        [keras.Input((4,), name="x"), L.BatchNormalization(), L.Dense(3)], name="net"
    )
    return JSIGRModel(net, PenaltySettings(selection="none"))


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
    assert list(card["endpoints"]) == ["serving_default", "logits", "explain"]
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


def test_threat_model_and_overwrite(
    model: JSIGRModel, tmp_path: Path, capsys: Any
) -> None:
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


def test_foreign_folders_and_files_are_never_replaced(
    model: JSIGRModel, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="earlier export"):
        export(model, precious, overwrite=True)
    with pytest.raises(ValueError, match="got a file"):
        export(model, precious / "thesis.txt", overwrite=True)
    assert names(tmp_path) == ["precious"]


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("where", ["write", "card", "rename"])
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
        import os

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
    import tensorflow as tf

    specs = [
        tf.TensorSpec((None,), name=n) for n in ("a/b", "a_b", "1x", None, "größe")
    ]
    assert [s.name for s in named_inputs(specs)] == [
        "a_b",
        "a_b_1",
        "inputs_1x",
        "inputs",
        "gr__e",
    ]


def grey(**settings: Any) -> JSIGRModel:
    net = keras.Sequential([keras.Input((6, 7)), L.Flatten(), L.Dense(3)])
    return JSIGRModel(net, PenaltySettings(selection="none"), **settings)


def test_the_layout_says_what_a_map_keeps() -> None:
    import tensorflow as tf

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
    with pytest.raises(ValueError, match="name the layout"):
        make_endpoints(model, layout="features")


def test_a_folder_of_the_user_is_read_where_it_was_written(
    model: JSIGRModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    export(model, "~/served/1", verbose=0)
    assert read_model_card("~/served/1")["classes"] == 3


def test_multilabel_logits_are_known_by_their_loss() -> None:
    net = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    model = JSIGRModel(net, PenaltySettings(selection="none"))
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    x = np.ones((2, 4), "float32")
    answer = make_endpoints(model)["serving_default"](x)
    assert answer["class"].shape == (2, 3)
    np.testing.assert_allclose(answer["probabilities"], 1 / (1 + np.exp(-net(x))), 1e-5)


def test_an_adversary_is_on_the_card(tmp_path: Path) -> None:
    from keras_jsigr.attacks.gradient.fgsm import FGSM

    net = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    settings = PenaltySettings(selection="none")
    model = JSIGRModel(net, settings, adversary=FGSM(epsilon=0.1))
    card = read_model_card(export(model, tmp_path / "1", verbose=0))
    assert card["adversary"]["class_name"].endswith("FGSM")
    assert card["adversary"]["config"]["epsilon"] == 0.1


def test_the_card_tells_the_weights_of_the_training(tmp_path: Path) -> None:
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    robust = JSIGRModel(net, PenaltySettings(selection="none"))
    robust.selective_weight.assign(0.3)
    settings = read_model_card(robust.export(tmp_path / "1", verbose=0))["settings"]
    assert settings == {**robust.settings.get_config(), "selective_weight": 0.3}
    assert PenaltySettings.from_config(settings).selective_weight == 0.3


def test_a_card_does_not_contradict_itself() -> None:
    known = checked_threat_model({"epsilon": 0.1, "evaluated": True}, [0.0, 1.0])
    assert "note" not in known
    assert "No robustness was measured" in checked_threat_model(None, [0, 1])["note"]
    with pytest.raises(TypeError, match="must hold JSON values"):
        checked_threat_model({"epsilon": float("nan")}, [0.0, 1.0])


class Mine:
    """An adversary that cannot be serialized."""

    def perturb(self, logits_fn: Any, x: Any, y: Any, seed: Any) -> Any:
        return x


def test_an_adversary_of_an_own_kind_is_named(tmp_path: Path) -> None:
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    robust = JSIGRModel(net, PenaltySettings(selection="none"), adversary=Mine())
    card = read_model_card(robust.export(tmp_path / "1", verbose=0))
    assert card["adversary"] == {"class_name": "Mine"}
