"""The server answers as the model does, and outlives what is no request."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_jsigr as kj
from keras_jsigr.serving.server import ModelServer, ServedExport

L = keras.layers
ROOT = Path(__file__).parents[2]
LARGEST = 2**26


def hardened(seed: int = 0) -> Any:
    keras.utils.set_random_seed(seed)
    net = keras.Sequential(
        [
            keras.Input((4, 4, 1), name="image"),
            L.Conv2D(3, 3, activation="silu"),
            L.Flatten(),
            L.Dense(3, activation="softmax"),
        ]
    )
    config = kj.JSIGRConfig(selection="none", check_gradients=False)
    return kj.harden(net, recipe=config, verbose=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "net"
    hardened().export(folder / "1", verbose=0)
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> ServedExport:
    return ServedExport(folder / "1")


def images(count: int = 2) -> Any:
    return np.random.default_rng(0).uniform(size=(count, 4, 4, 1)).tolist()


def with_entry(value: Any) -> Any:
    batch = images()
    batch[1][2][3][0] = value
    return batch


def payloads() -> list[Any]:
    """Bodies that are JSON, but no requests."""
    good = images()
    arrays = [
        *(with_entry(v) for v in (None, "0.5", "", [], [0.5], {}, {"a": 1}, [[0.1]])),
        *(with_entry(v) for v in (1e300, -1e300, 10**30, -(10**30), 2.0, -1.0, 255, 1e38)),
        *(np.zeros(s).tolist() for s in ((2, 4, 4), (4, 4, 1), (2, 4, 4, 3), (2, 5, 4, 1))),
        *(np.zeros(s).tolist() for s in ((2, 2, 8, 1), (2, 16), (2,), (1, 1, 4, 4, 1))),
        *(np.zeros(s).tolist() for s in ((2, 0, 4, 1), (2, 4, 4, 0), (1, 0), (2, 4, 3, 1))),
        *(0, 1.5, True, None, "", "image", {}, {"images": good}, [[]], [[[]]], [None], [{}]),
        [good[0], good[1][:3]],
        [good[0], good[1][0]],
        [good[0], []],
        [good[0], {"image": good[1]}],
        [good[0][0], good[0]],
        images(1025),
        [[[[[[[[[[0.0]]]]]]]]]],
        [[["a" * 4] * 4] * 4],
    ]
    bodies: list[Any] = [{"inputs": a} for a in arrays]
    bodies += [{"inputs": {"image": a}} for a in arrays if not isinstance(a, dict)]
    bodies += [{"instances": a} for a in arrays]
    bodies += [{"instances": [{"image": a}]} for a in (good, None, "x", 3, {}, [])]
    bodies += [{"instances": [{"image": good[0]}, {"image": good[0][:2]}]}]
    bodies += [{"instances": [{"image": good[0]}, {"picture": good[1]}]}]
    bodies += [{"instances": [{"image": good[0], "more": 1}]}]
    bodies += [{"inputs": {"image": good, "more": good}}, {"inputs": {"": good}}]
    bodies += [
        {"inputs": good, "instances": good},
        {"inputs": good, "more": 1},
        {},
        {"input": good},
    ]
    names = ("", "train", "Predict", "serve/../explain", "x" * 10_000, None, 1, [], {}, ["logits"])
    bodies += [{"inputs": good, "signature_name": name} for name in names]
    return [
        *bodies,
        [],
        [good],
        good,
        0,
        1.5,
        None,
        True,
        "",
        "inputs",
        [{"inputs": good}],
        {},
        {"input": good},
    ]


def test_answers_are_those_of_the_model(served: ServedExport) -> None:
    model, x = hardened(), np.array(images(), "float32")
    wanted = model.predict(x, verbose=0)
    found = served.answer({"inputs": {"image": x.tolist()}})["outputs"]
    np.testing.assert_allclose(found["probabilities"], wanted, atol=1e-6)
    for rows in (x.tolist(), [{"image": each} for each in x.tolist()]):
        predictions = served.answer({"instances": rows})["predictions"]
        np.testing.assert_allclose([p["probabilities"] for p in predictions], wanted, atol=1e-6)
    logits = served.answer({"inputs": x.tolist(), "signature_name": "logits"})["outputs"]
    np.testing.assert_allclose(logits["logits"], model.logits(x), atol=1e-5)
    maps = served.answer({"inputs": x.tolist()}, "explain")["outputs"]["saliency"]
    np.testing.assert_allclose(maps, kj.explain(model, x, wanted.argmax(1)), atol=1e-5)
    assert served.answer({"inputs": []})["outputs"]["probabilities"].shape == (0, 3)
    assert served.answer({"instances": []}) == {"predictions": []}


def test_what_is_no_request_is_refused_in_words(served: ServedExport) -> None:
    refused = payloads()
    assert len(refused) > 150
    wrong = []
    for body in refused:
        try:
            answer = served.answer(body)
        except ValueError as error:
            told = str(error)
        else:
            told = f"answered: {answer}"
        if not 10 < len(told) < 1000 or told.startswith("answered"):
            wrong.append((str(body)[:80], told[:200]))
    assert wrong == []


def test_integers_and_several_inputs(tmp_path: Path) -> None:
    left, token = keras.Input((3,), name="left"), keras.Input((2,), name="token", dtype="int32")
    both = L.Concatenate()([left, L.Flatten()(L.Embedding(9, 2)(token))])
    net = keras.Model([left, token], L.Dense(3, activation="softmax")(both))
    config = kj.JSIGRConfig(selection="none", check_gradients=False)
    kj.harden(net, recipe=config, verbose=0).export(tmp_path / "1", verbose=0)
    served = ServedExport(tmp_path / "1")
    good = {"left": [[0.1, 0.2, 0.3]], "token": [[1, 2]]}
    assert served.answer({"inputs": good})["outputs"]["class"].shape == (1,)
    row = {name: value[0] for name, value in good.items()}
    assert len(served.answer({"instances": [row, row]})["predictions"]) == 2
    for wrong in (
        {**good, "token": [[1.5, 2]]},
        {**good, "token": [[2**40, 2]]},
        {**good, "token": [[1, 2]] * 2},
        {"left": good["left"]},
        good["left"],
        {**good, "token": [[True, False]]},
    ):
        with pytest.raises(ValueError, match=r"left|token|inputs"):
            served.answer({"inputs": wrong})


def test_damaged_exports_are_not_served(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "1", tmp_path / "1")
    file = next((tmp_path / "1" / "variables").glob("*.data*"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="changed"):
        ServedExport(tmp_path / "1")


def test_the_server_says_what_it_needs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kserve", None)
    with pytest.raises(ImportError, match=r"keras-jsigr\[serving\]"):
        ModelServer(folder)


@pytest.fixture(scope="module")
def address(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server in a process of its own."""
    pytest.importorskip("kserve", reason="kserve is missing: make serve-test")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "server.log"
    command = [sys.executable, "-m", "keras_jsigr.serving.server", folder, "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(log, "wb") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert server.poll() is None, log.read_text()
            time.sleep(0.2)
        yield port
        assert server.poll() is None, log.read_text()
    finally:
        server.terminate()
        server.wait()


def ask(port: int, path: str, body: Any = b"", method: str = "POST", **headers: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with suppress(BrokenPipeError, ConnectionResetError):  # it may answer before it read all
        connection.request(method, path, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text else None


PREDICT = "/v1/models/net:predict"


@pytest.mark.slow
def test_malformed_requests_get_4xx(address: int) -> None:
    good = json.dumps({"inputs": images()}).encode()
    raw: list[tuple[str, bytes]] = [(PREDICT, json.dumps(body).encode()) for body in payloads()]
    raw += [(PREDICT, good[:end]) for end in (0, 1, 5, 10, len(good) // 2, len(good) - 1)]
    raw += [(PREDICT, b) for b in (b"\x00", b"\xff\xfe", b"NaN", b"[" * 100_000, b"{" * 999)]
    raw += [(PREDICT, good.replace(b"[[[[", b"[[[[" + b)) for b in (b"NaN,", b"Infinity,", b",")]
    raw += [(PREDICT, b"x=1&y=2"), (PREDICT, b"<a/>"), (PREDICT, good + b"}")]
    raw += [(PREDICT, b'{"inputs": "' + b"a" * 1_000_000 + b'"}')]
    raw += [(path, good) for path in ("/v1/models/other:predict", "/v1/models/net:train")]
    raw += [(path, good) for path in ("/v1/models/net/versions/9:predict", "/", "/v1", "/..")]
    raw += [("/v1/models/net/versions/x:explain", good), ("/v1/models/%2e%2e:predict", good)]
    wrong = [(p, b[:80], s) for p, b in raw if not 400 <= (s := ask(address, p, b)[0]) < 500]
    assert wrong == [], wrong
    assert ask(address, PREDICT, method="GET")[0] in (404, 405)
    assert ask(address, PREDICT, b" " * (LARGEST + 1))[0] == 413
    assert ask(address, PREDICT, good, **{"ce-id": "1", "ce-type": "x"})[0] in (200, 400)
    assert ask(address, "/v2/repository/models/net/unload")[0] in (400, 404)
    form = {"content-type": "application/x-www-form-urlencoded"}  # as curl -d sends it
    assert ask(address, PREDICT, b"[" * 100_000, **form)[0] == 400
    assert ask(address, PREDICT, good, **form)[0] == 200
    assert ask(address, PREDICT, good)[0] == 200


@pytest.mark.slow
def test_versions_and_endpoints(address: int, folder: Path) -> None:
    body = json.dumps({"instances": images()})
    status, first = ask(address, PREDICT, body)
    assert status == 200
    wanted = hardened().predict(np.array(images(), "float32"), verbose=0)
    found = [each["probabilities"] for each in first["predictions"]]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    _, explained = ask(address, "/v1/models/net:explain", body)
    assert np.shape(explained["predictions"][0]["saliency"]) == (4, 4)
    logits = json.dumps({"inputs": images(), "signature_name": "logits"})
    assert np.shape(ask(address, PREDICT, logits)[1]["outputs"]["logits"]) == (2, 3)
    second_path = "/v1/models/net/versions/2:predict"
    assert ask(address, second_path, body)[0] == 404
    second = hardened(1)
    second.export(folder / "2", verbose=0)
    assert ask(address, PREDICT, body)[1] == first  # until it is told to load
    assert ask(address, "/v2/repository/models/net/load")[0] == 200
    _, newest = ask(address, PREDICT, body)
    wanted = second.predict(np.array(images(), "float32"), verbose=0)
    found = [each["probabilities"] for each in newest["predictions"]]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert ask(address, second_path, body)[1] == newest
    assert ask(address, "/v1/models/net/versions/1:predict", body)[1] == first
    assert ask(address, "/v1/models/net/versions/1:explain", body)[1] == explained
