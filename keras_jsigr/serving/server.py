"""A model server over exports, by KServe: decision, logits and explanation as JSON.

    python -m keras_jsigr.serving.server served/fashion --port 8080

serves all versions `served/fashion/1`, `served/fashion/2` ... on this machine only. It speaks
the REST interface of TensorFlow Serving, `POST /v1/models/fashion:predict`, and KServe's
`POST /v1/models/fashion:explain`. The package `kserve` comes with `keras-jsigr[serving]`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.files import local_path
from keras_jsigr.serving.model_card import verify

Array = npt.NDArray[Any]
_DEFAULT = "serving_default"
_PAYLOAD = "expected {'instances': [...]} or {'inputs': ...}, with an optional 'signature_name'"
# Part of the range by which rounding may leave it.
_RANGE_TOLERANCE = 1e-4


class ServedExport:
    """An export in memory, with checks of everything that a request can hold.

    Args:
        folder: What `keras_jsigr.serving.export` wrote; its checksums are verified.
        max_batch: The largest number of examples in a request, >= 1.

    Raises:
        ValueError: If the folder holds no export, or its files are not those of its card.

    Example:
        >>> import tempfile
        >>> import keras
        >>> import keras_jsigr as kj
        >>> from keras_jsigr.serving.server import ServedExport
        >>> net = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(3)])
        >>> robust = kj.harden(net, epsilon=0.1, verbose=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = robust.export(folder, verbose=0)
        ...     answer = ServedExport(folder).answer({"inputs": {"x": [[0.1, 0.9]]}})
        >>> answer["outputs"]["probabilities"].shape
        (1, 3)
    """

    def __init__(self, folder: str | os.PathLike[str], max_batch: int = 1024) -> None:
        self.max_batch = arguments.count("max_batch", max_batch)
        self.card = verify(folder)
        self._loaded = tf.saved_model.load(str(local_path(folder)))
        self._functions: Mapping[str, Any] = self._loaded.signatures
        self._inputs = {each["name"]: each for each in self.card["inputs"]}
        floats = [n for n, each in self._inputs.items() if _dtype(each).kind == "f"]
        known = isinstance(self.card["input_range"], list) and len(floats) == 1
        # With several inputs, or columns with ranges of their own, the card does not tell.
        self._ranges = {floats[0]: tuple(self.card["input_range"])} if known else {}

    def answer(self, payload: Any, endpoint: str | None = None) -> dict[str, Any]:
        """Answer a request in TensorFlow Serving's form.

        Args:
            payload: `{"inputs": {name: array}}`, or an array alone for a single input; or
                `{"instances": [{name: example}, ...]}`, or a list of examples.
            endpoint: The endpoint; by default `signature_name` of the payload, or
                `serving_default`.

        Returns:
            `{"outputs": {name: array}}`, or `{"predictions": [{name: row}, ...]}`.

        Raises:
            ValueError: If the request does not fit the model.
        """
        if not isinstance(payload, dict):
            raise ValueError(f"Got {type(payload).__name__}, {_PAYLOAD}.")
        unknown = sorted(map(str, payload.keys() - {"instances", "inputs", "signature_name"}))
        if unknown or ("instances" in payload) == ("inputs" in payload):
            raise ValueError(f"Got the keys {sorted(map(str, payload))[:10]}, {_PAYLOAD}.")
        endpoint = endpoint or payload.get("signature_name", _DEFAULT)
        if not isinstance(endpoint, str) or endpoint not in self._functions:
            raise ValueError(
                f"Got the endpoint {str(endpoint)[:60]!r}, expected one of "
                f"{sorted(self._functions)}."
            )
        rows = "instances" in payload
        columns = self._columns(payload["instances"]) if rows else payload["inputs"]
        batch = self._batch(columns)
        try:
            found = self._functions[endpoint](**{n: tf.constant(v) for n, v in batch.items()})
        except (tf.errors.InvalidArgumentError, TypeError) as error:
            raise ValueError(f"The model refuses the inputs: {str(error)[:300]}") from error
        outputs = {name: value.numpy() for name, value in found.items()}
        if not rows:
            return {"outputs": outputs}
        count = len(next(iter(outputs.values())))
        return {"predictions": [{n: v[i] for n, v in outputs.items()} for i in range(count)]}

    def _columns(self, instances: Any) -> Any:
        """Turn a list of examples into a batch for every input."""
        if not isinstance(instances, list):
            raise ValueError(f"`instances` is {type(instances).__name__}, expected a list.")
        self._check_count(len(instances))
        if not any(isinstance(each, dict) for each in instances):
            return instances
        names = set(self._inputs)
        for number, each in enumerate(instances):
            if not isinstance(each, dict) or set(each) != names:
                raise ValueError(f"Example {number} does not have the inputs {sorted(names)}.")
        return {name: [each[name] for each in instances] for name in self._inputs}

    def _batch(self, columns: Any) -> dict[str, Array]:
        if not isinstance(columns, dict):
            if len(self._inputs) > 1:
                raise ValueError(f"Got one array, expected the inputs {sorted(self._inputs)}.")
            columns = {next(iter(self._inputs)): columns}
        if set(columns) != set(self._inputs):
            raise ValueError(
                f"Got the inputs {sorted(map(str, columns))[:10]}, expected {sorted(self._inputs)}."
            )
        batch = {name: self._array(name, value) for name, value in columns.items()}
        sizes = {len(value) for value in batch.values()}
        if len(sizes) > 1:
            raise ValueError(f"The inputs differ in their number of examples: got {sizes}.")
        return batch

    def _array(self, name: str, value: Any) -> Array:
        """Return an input as the model takes it."""
        entry, dtype = self._inputs[name], _dtype(self._inputs[name])
        if isinstance(value, list):
            self._check_count(len(value))
        try:
            array = np.asarray(value)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"`{name}` is no array: rows of different lengths.") from error
        shape = tuple(entry["shape"])
        if array.shape == (0,) and None not in shape[1:]:
            array = np.zeros((0, *shape[1:]), dtype)  # JSON's empty list
        kinds = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}.get(dtype.kind, dtype.kind)
        if array.dtype.kind not in kinds:
            raise ValueError(f"`{name}` has entries of another type, expected {dtype.name}.")
        sides = zip(array.shape[1:], shape[1:], strict=False)
        if array.ndim != len(shape) or any(s not in (got, None) for got, s in sides):
            told = ["B" if number == 0 else side for number, side in enumerate(shape)]
            raise ValueError(f"`{name}` has shape {array.shape}, expected {told}.")
        self._check_count(len(array))
        if dtype.kind in "iu" and array.size:
            ends = np.iinfo(dtype)
            if array.min() < ends.min or array.max() > ends.max:
                raise ValueError(f"`{name}` leaves the range of {dtype.name}.")
        with np.errstate(over="ignore"):
            array = array.astype(dtype)
        if dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"`{name}` holds NaN, infinity or numbers too large.")
        if name in self._ranges and array.size:
            low, high = self._ranges[name]
            slack = _RANGE_TOLERANCE * (high - low)
            if array.min() < low - slack or array.max() > high + slack:
                raise ValueError(
                    f"`{name}` leaves the range of the training data: got {array.min():g} to "
                    f"{array.max():g}, expected {low:g} to {high:g}. Scale it as for training."
                )
        return array

    def _check_count(self, count: int) -> None:
        if count > self.max_batch:
            raise ValueError(f"Got {count} examples, expected at most {self.max_batch}.")


def _dtype(entry: Mapping[str, Any]) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(tf.as_dtype(entry["dtype"]).as_numpy_dtype)
    return dtype


class ModelServer:
    """KServe over all versions of a model: REST, on this machine.

    `POST /v1/models/NAME:predict` and `:explain` answer by the newest version,
    `/v1/models/NAME/versions/2:predict` by that one. `POST /v2/repository/models/NAME/load`
    reads the folder again: a new version is served from then on, older ones stay.

    Args:
        folder: The folder of the versions, `NAME`, with an export in `NAME/1` and so on.
        max_batch: The largest number of examples in a request, >= 1.
        max_bytes: The largest request, in bytes, >= 1.

    Raises:
        ImportError: If KServe is not installed.
        ValueError: If there is no version, or a damaged one.

    Example:
        >>> from keras_jsigr.serving.server import ModelServer
        >>> ModelServer("served/fashion").run(port=8080)  # doctest: +SKIP
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, max_batch: int = 1024, max_bytes: int = 2**26
    ) -> None:
        self.folder = local_path(folder).absolute()
        self.name = self.folder.name
        self.versions: dict[int, ServedExport] = {}
        self._max_batch = arguments.count("max_batch", max_batch)
        self._max_bytes = arguments.count("max_bytes", max_bytes)
        self._kserve = _import_kserve()
        self._lock = threading.Lock()
        self.repository = self._kserve.ModelRepository(str(self.folder))
        # KServe's way to read a repository again; unloading is left to who started the server.
        self.repository.load = lambda name: name == self.name and self.load()
        self.repository.unload = _refuse_unload
        self.load()

    def load(self) -> bool:
        """Read the versions that were added to the folder; the newest becomes the default.

        Raises:
            ValueError: If there is no version, or a damaged one, which is not served.
        """
        with self._lock:
            found = {
                int(path.name): path
                for path in (self.folder.iterdir() if self.folder.is_dir() else ())
                if path.name.isascii() and path.name.isdigit() and path.is_dir()
            }
            if not found:
                raise ValueError(
                    f"'{self.folder}' has no version: expected exports in its folders 1, 2 and "
                    "so on. Write one by `robust.export(folder / '1')`."
                )
            for number in sorted(found.keys() - self.versions.keys()):
                export = ServedExport(found[number], self._max_batch)
                self.versions[number] = export
                self._register(f"{self.name}/versions/{number}", export)
            self._register(self.name, self.versions[max(self.versions)])
        return True

    def _register(self, name: str, export: ServedExport) -> None:
        model = _kserve_model(self._kserve, name, export)
        self.repository.update(model)

    def app(self) -> Any:
        """Make the ASGI application, for a server of your own."""
        fastapi, errors = importlib.import_module("fastapi"), self._kserve.errors
        rest = importlib.import_module("kserve.protocol.rest.v1_endpoints")
        v2 = importlib.import_module("kserve.protocol.rest.v2_endpoints")
        planes = importlib.import_module("kserve.protocol.dataplane")
        extensions = importlib.import_module("kserve.protocol.model_repository_extension")
        plane = planes.DataPlane(model_registry=self.repository)
        extension = extensions.ModelRepositoryExtension(model_registry=self.repository)
        app = fastapi.FastAPI(title=self.name, docs_url=None, redoc_url=None, openapi_url=None)
        one = rest.V1Endpoints(plane, extension)
        for verb, answer in (("predict", one.predict), ("explain", one.explain)):
            app.add_api_route(
                f"/v1/models/{{model_name}}/versions/{{version}}:{verb}",
                _of_version(answer, fastapi.Request),
                response_model=None,
                methods=["POST"],
            )
        rest.register_v1_endpoints(app, plane, extension)
        v2.register_v2_endpoints(app, plane, extension)
        for kind, handler in (
            (errors.InvalidInput, errors.invalid_input_handler),
            (errors.ModelNotFound, errors.model_not_found_handler),
            (errors.ModelNotReady, errors.model_not_ready_handler),
            (NotImplementedError, errors.not_implemented_error_handler),
        ):
            app.add_exception_handler(kind, handler)
        return _LimitedBody(app, self._max_bytes)

    def run(self, *, address: str = "127.0.0.1", port: int = 8080) -> None:
        """Serve until interrupted.

        Args:
            address: The address to listen at; by default requests of this machine alone.
                The server knows no passwords and no encryption: put others behind a proxy.
            port: The port, 1..65535.
        """
        uvicorn = importlib.import_module("uvicorn")
        uvicorn.run(self.app(), host=address, port=port, log_level="warning")


def _import_kserve() -> Any:
    try:
        return importlib.import_module("kserve")
    except ImportError as error:
        raise ImportError(
            f"The model server needs KServe: {error}. Install it by "
            "`pip install 'keras-jsigr[serving]'`."
        ) from error


def _refuse_unload(name: str) -> None:
    raise KeyError(f"{name} stays loaded")


def _kserve_model(kserve: Any, name: str, export: ServedExport) -> Any:
    """Wrap an export as a model of KServe."""

    async def answer(payload: Any, endpoint: str | None = None) -> Any:
        try:
            if isinstance(payload, bytes):  # of a client that does not call it JSON, as curl
                payload = json.loads(payload)
            # TensorFlow lets other requests run meanwhile.
            return await asyncio.to_thread(export.answer, payload, endpoint)
        except (ValueError, RecursionError) as error:
            raise kserve.errors.InvalidInput(str(error)) from error

    class Served(kserve.Model):
        async def predict(self, payload: Any, *args: Any, **kwargs: Any) -> Any:
            return await answer(payload)

        async def explain(self, payload: Any, *args: Any, **kwargs: Any) -> Any:
            return await answer(payload, "explain")

    model = Served(name)
    model.ready = True
    return model


def _of_version(answer: Any, request_type: Any) -> Any:
    async def endpoint(model_name: str, version: str, request: Any) -> Any:
        return await answer(f"{model_name}/versions/{version}", request)

    # FastAPI reads the types of arguments, which are imported only now.
    endpoint.__annotations__ = {"model_name": str, "version": str, "request": request_type}
    return endpoint


class _LimitedBody:
    """Refuse requests that are too large before they are in memory."""

    def __init__(self, app: Any, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
            if size > self._limit:
                headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
                start = {"type": "http.response.start", "status": 413, "headers": headers}
                await send(start)
                told = f'{{"error": "Got more than {self._limit} bytes."}}'.encode()
                await send({"type": "http.response.body", "body": told})
                return
        whole = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

        async def replay() -> Any:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)


def main() -> None:
    """Serve a folder of exports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="NAME, with exports in NAME/1 and so on")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    server = ModelServer(options.folder)
    told = f"serving {server.name} {sorted(server.versions)} at {options.address}:{options.port}"
    print(told, flush=True)
    server.run(address=options.address, port=options.port)


if __name__ == "__main__":
    main()
