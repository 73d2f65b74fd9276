"""Export a hardened model as a SavedModel with three endpoints and a model card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.files import check_target, replaced_folder
from keras_jsigr.core.logits import is_hardened
from keras_jsigr.core.scores import ScoreName
from keras_jsigr.saliency.masks import Layout
from keras_jsigr.serving.endpoints import EndpointFn, make_endpoints, named_inputs
from keras_jsigr.serving.model_card import (
    CARD_NAME,
    check_threat_model,
    model_card,
    write_model_card,
)


def export(
    model: Any,
    path: str | os.PathLike[str],
    *,
    explain_score: ScoreName = "log_prob",
    layout: Layout | None = None,
    threat_model: dict[str, Any] | None = None,
    overwrite: bool = False,
    verbose: int = 1,
) -> Path:
    """Write a SavedModel that is served without keras_jsigr.

    Endpoints, for any batch size `B`, with the model's own inputs by name:

    - `serving_default`: `probabilities` float32 `(B, C)` and `class` int64 `(B,)`;
      with a multi-label sigmoid head `class` is `(B, C)`, zeros and ones;
    - `logits`: `logits` float32 `(B, C)`;
    - `explain`: the decision and `saliency` float32 `(B, *map_shape)`, the sum over
      the channels (by default the last axis, if there are several) of `|d s / d x|`
      for the predicted class; with several regularized inputs `saliency_<input>` for
      each.

    All run in inference mode. Compile the model first if it returns logits: the loss
    tells whether the classes exclude each other. The folder gets its name only once it
    is complete. The model may be used in other threads at the same time; the export
    has the weights of the moment when they are written.

    The endpoints take inputs by name, as servers do; `keras.layers.TFSMLayer` loads
    them for models of one input.

    Args:
        model: A hardened model.
        path: The folder to write, for TensorFlow Serving `NAME/VERSION`.
        explain_score: The score `s`: `"log_prob"`, `"margin"` or `"logit"`.
        layout: What the axes of an example mean if the rank does not tell:
            `"image"` for grey images `(H, W)`; by default that of cached maps.
        threat_model: Entries for the card's `threat_model`, such as
            `{"epsilon": 0.1, "evaluated": True, "note": "PGD-50: 61 %"}`; without
            `epsilon` the radius that the model was hardened for.
        overwrite: Whether to replace an earlier export.
        verbose: Whether to print one line, see `keras.config` for interactive logging.

    Returns:
        The path of the model card, `model_card.json` in the folder.

    Raises:
        TypeError: If `model` is not hardened, or `threat_model` not a dict of JSON
            values.
        ValueError: If the score is unknown, the layout does not fit, or the path is
            taken.

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
    target = Path(path).expanduser().absolute()
    check_target(target, overwrite)
    check_threat_model(threat_model)  # now, not after minutes of tracing
    endpoints = make_endpoints(model, explain_score, layout)
    with replaced_folder(target) as folder:
        signatures = _write_saved_model(model, endpoints, folder)
        inputs = signatures["serving_default"]["inputs"]
        card = model_card(model, inputs, signatures, threat_model)
        write_model_card(card, folder)
    arguments.tell(f"exported {', '.join(endpoints)} to '{target}'.", verbose)
    return target / CARD_NAME


def _write_saved_model(
    model: Any, endpoints: dict[str, EndpointFn], folder: Path
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Trace the endpoints and write them; return what they take and give."""
    specs = named_inputs(model.input_specs)
    archive = keras.export.ExportArchive()
    # Only the base's variables: a server needs none of the wrapper's.
    archive.track(model.base)
    signatures = {}
    for name, function in endpoints.items():
        traced = archive.add_endpoint(name, function, input_signature=specs)
        outputs = traced.get_concrete_function().structured_outputs
        signatures[name] = {
            "inputs": [_entry(spec.name, spec) for spec in specs],
            "outputs": [_entry(key, spec) for key, spec in outputs.items()],
        }
    archive.write_out(str(folder), verbose=False)
    return signatures


def _entry(name: str, spec: tf.TensorSpec) -> dict[str, Any]:
    return {"name": name, "dtype": spec.dtype.name, "shape": spec.shape.as_list()}
