"""Export a hardened model: a SavedModel with endpoints and a card, or one file."""

from __future__ import annotations

import inspect
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.files import check_target, local_path, replaced_folder
from keras_jsigr.core.logits import is_hardened
from keras_jsigr.core.scores import ScoreName
from keras_jsigr.saliency.masks import Layout
from keras_jsigr.serving.endpoints import EndpointFn, make_endpoints, requested_specs
from keras_jsigr.serving.model_card import (
    CARD_NAME,
    check_threat_model,
    checksums,
    model_card,
)

# Formats of files, by their suffixes.
_FILES = {".onnx": "onnx", ".tflite": "litert", ".xml": "openvino"}


def export(
    model: Any,
    path: str | os.PathLike[str],
    *,
    explain_score: ScoreName = "log_prob",
    layout: Layout | None = None,
    threat_model: dict[str, Any] | None = None,
    input_signature: Any = None,
    overwrite: bool = False,
    verbose: int = 1,
) -> Path:
    """Write a SavedModel that is served without keras_jsigr.

    Endpoints, for any batch size `B`, with the model's own inputs by name:

    - `serving_default`: `probabilities` float32 `(B, C)` and `class` int64 `(B,)`, or
      `(B, C)` of zeros and ones with a multi-label sigmoid head;
    - `logits`: `logits` float32 `(B, C)`;
    - `explain`: the decision and `saliency` float32 `(B, *map_shape)`, the sum over the channels
      (by default the last axis, if there are several) of `|d s / d x|` for the predicted class;
      with several regularized inputs `saliency_<input>` for each;
    - `serve`: what the model itself returns, for `keras.layers.TFSMLayer(path)`.

    All run in inference mode and refuse inputs of another shape. Compile the model
    first if it returns logits: the loss tells whether the classes exclude each other.
    The folder gets its name only once it is complete. Other threads may use the model
    meanwhile; the export has the weights of the moment when they are written.

    Args:
        model: A hardened model.
        path: The folder to write, for TensorFlow Serving `NAME/VERSION`.
        explain_score: The score `s`: `"log_prob"`, `"margin"` or `"logit"`.
        layout: What the axes of an example mean if the rank does not tell:
            `"image"` for grey images `(H, W)`; by default that of cached maps.
        threat_model: Entries for the card's `threat_model`, such as
            `{"epsilon": 0.1, "evaluated": True, "note": "PGD-50: 61 %"}`; without
            `epsilon` the radius that the model was hardened for.
        input_signature: A `tf.TensorSpec` or `keras.InputSpec` for every input, to fix
            sides that the model leaves open.
        overwrite: Whether to replace an earlier export.
        verbose: Whether to print one line, see `keras.config` for interactive logging.

    Returns:
        The path of the model card, `model_card.json` in the folder.

    Raises:
        TypeError: If `model` is not hardened, or `threat_model` not a dict of JSON values.
        ValueError: If the score is unknown, layout or signature do not fit, or the
            path is taken or not on this machine.

    Reference:
        arXiv 1312.6034 (gradient saliency).

    Example:
        >>> import tempfile
        >>> import keras
        >>> import keras_jsigr as kj
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> robust = kj.harden(net, epsilon=0.1, verbose=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kj.serving.export(robust, folder, verbose=0).name
        'model_card.json'
    """
    if not is_hardened(model):
        raise TypeError(
            f"Got {type(model).__name__}, expected a hardened model. Wrap it with "
            "`keras_jsigr.harden` first, or export it with `keras.Model.export`."
        )
    target = local_path(path).absolute()
    if target.suffix in _FILES:
        raise ValueError(
            f"Cannot export to '{target}': got the name of a file and the format 'tf_saved_model', "
            f"which is a folder. Pass format='{_FILES[target.suffix]}', or the name of a folder."
        )
    check_target(target, overwrite)
    check_threat_model(threat_model)  # now, not after minutes of tracing
    endpoints = make_endpoints(model, explain_score, layout, input_signature)
    specs = requested_specs(model.input_specs, input_signature)
    with replaced_folder(target) as folder:
        signatures = _write_saved_model(model, endpoints, specs, folder)
        inputs = signatures["serving_default"]["inputs"]
        card = model_card(model, inputs, signatures, threat_model)
        card["files"] = checksums(folder)
        text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
        (folder / CARD_NAME).write_text(text, encoding="utf-8")
    arguments.tell(f"exported {', '.join(endpoints)} to '{target}'.", verbose)
    return target / CARD_NAME


def _write_saved_model(
    model: Any, endpoints: dict[str, EndpointFn], specs: list[tf.TensorSpec], folder: Path
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Trace the endpoints and write them; return what they take and give."""
    archive = keras.export.ExportArchive()
    # Only the base's variables: a server needs none of the wrapper's.
    archive.track(model.base)
    signatures = {}
    for name, function in endpoints.items():
        # `TFSMLayer` passes the inputs as the model takes them, in one argument.
        packed = [keras.tree.pack_sequence_as(model.input_specs, specs)]
        signature = packed if name == "serve" else specs
        traced = archive.add_endpoint(name, function, input_signature=signature)
        outputs = traced.get_concrete_function().structured_outputs
        if not isinstance(outputs, dict):
            outputs = {"output_0": keras.tree.flatten(outputs)[0]}
        signatures[name] = {
            "inputs": [_entry(spec.name, spec) for spec in specs],
            "outputs": [_entry(key, spec) for key, spec in outputs.items()],
        }
    archive.write_out(str(folder), verbose=False)
    return signatures


def _entry(name: str, spec: tf.TensorSpec) -> dict[str, Any]:
    return {"name": name, "dtype": spec.dtype.name, "shape": spec.shape.as_list()}


def export_as(
    model: Any, path: str | os.PathLike[str], format: str = "tf_saved_model", **settings: Any
) -> Path:
    """Export in the format of that name, as `JSIGRModel.export` does."""
    if format != "tf_saved_model":
        return export_base(model, path, format, **settings)
    return export(model, path, **settings)


def export_base(
    model: Any,
    path: str | os.PathLike[str],
    format: str,
    *,
    overwrite: bool = False,
    verbose: int = 1,
    **settings: Any,
) -> Path:
    """Export the base in another format of Keras, all of its files or none."""
    target = local_path(path).absolute()
    _check_settings(model.base, format, settings)
    _check_file(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, because a rename is atomic only within one file system.
    hidden = tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent)
    with hidden as folder:
        file = os.path.join(folder, target.name)
        model.base.export(file, format=format, verbose=False, **settings)
        made = sorted(Path(folder).iterdir())  # OpenVINO writes a second file
        for part in made:
            _check_file(target.parent / part.name, overwrite)
        for part in made:
            os.replace(part, target.parent / part.name)
    arguments.tell(f"exported the {format} model to '{target}'.", verbose)
    return target


def _check_file(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise ValueError(
            f"Cannot export to '{path}': got a folder, expected the name of a file. Add one."
        )
    if path.exists() and not overwrite:
        raise ValueError(
            f"Cannot export to '{path}': the file exists. Choose another name, or "
            "replace it with `overwrite=True`."
        )


def _check_settings(base: keras.Model, format: str, settings: dict[str, Any]) -> None:
    """Refuse what the exporter of a format would pass over in silence."""
    known = {"input_signature"} | ({"opset_version"} if format == "onnx" else set())
    ours = settings.keys() & inspect.signature(export).parameters.keys() - known
    if ours:
        raise TypeError(
            f"The format {format!r} holds the bare model, without card and endpoints: "
            f"got {sorted(ours)}. Leave them out, or export as 'tf_saved_model'."
        )
    if format == "litert":
        known |= set(dir(tf.lite.TFLiteConverter.from_keras_model(base)))
    unknown = sorted(settings.keys() - known)
    if unknown:
        raise TypeError(
            f"The format {format!r} has no such settings: got {unknown}. See "
            "`keras.Model.export` for those it takes."
        )
