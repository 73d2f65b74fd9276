"""Files of hardened models: what they may be called, and those of version 0.1.0."""

from __future__ import annotations

from typing import Any

import keras

from keras_jsigr.core import arguments

# The scalars of a file of version 0.1.0, which numbers them in this order.
V0_1_SCALARS = (
    "jacobian_weight",
    "selective_weight",
    "alignment_weight",
    "delay_steps",
    "warmup_steps",
    "steps_taken",
    "mean_change",
    "penalty_factor",
    "reference_accuracy",
    "accuracy_slack",
)


def refuse_h5(path: Any = None) -> None:
    """Refuse the old format, which Keras writes and then cannot load; see how it writes now."""
    name = str(path)
    old = name.endswith((".h5", ".hdf5")) and not name.endswith(".weights.h5")
    if path is None:  # `keras.saving.save_model` asks for the configuration alone
        probe = keras.Sequential([keras.layers.Identity(name="probe")], name="probe")
        old, name = "module" not in probe.get_config()["layers"][0], "an .h5 file"
    if old:
        raise ValueError(
            f"Hardened models are saved as .keras files: got '{name}', expected a name that ends "
            "in .keras. The base is saved as .h5 by `unwrap(model).save`; weights alone by "
            "`save_weights('name.weights.h5')`."
        )


def read_v0_1_settings(old: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the constructor for settings of version 0.1.0."""
    if old.get("penalty_weights") == "auto":
        arguments.tell(
            "this file was saved with penalty_weights='auto': to go on adapting the "
            "weights, pass keras_jsigr.callbacks.AccuracyConstraint(max_drop="
            f"{old.get('accuracy_drop', 0.02)}) to `fit`."
        )
    return {
        "config": old,
        "input_range": tuple(old["input_range"]),
        "inputs": old.get("inputs"),
        "warmup": int(old.get("ramp_steps", 0)),
        "seed": old.get("seed", 0),
    }


def without_compile_config(config: Any) -> Any:
    """Leave out how models were compiled: files of earlier versions hold it."""
    if isinstance(config, (list, tuple)):
        return type(config)(map(without_compile_config, config))
    if not isinstance(config, dict):
        return config
    drop = {"compile_config"} if "class_name" in config else set()
    return {k: without_compile_config(v) for k, v in config.items() if k not in drop}
