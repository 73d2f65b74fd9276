"""A model file that also holds the state of the random layers."""

from __future__ import annotations

from typing import Any

import keras

_PREFIX = "random_state_"


class ResumableModel(keras.Model):
    """A wrapper whose saved training goes on as if it had not been interrupted.

    Keras leaves the seed state of Dropout and of augmentation layers out of `.keras`
    files and weight files: a resumed training draws other masks. Here the state of all
    random layers of the base is saved with the wrapper's own variables.

    Attributes:
        base: The wrapped model.
    """

    base: keras.Model

    def save_own_variables(self, store: Any) -> None:
        """Save the wrapper's variables and the base's random states."""
        super().save_own_variables(store)
        for index, state in enumerate(self._random_states()):
            store[f"{_PREFIX}{index}"] = keras.ops.convert_to_numpy(state)

    def load_own_variables(self, store: Any) -> None:
        """Load what `save_own_variables` saved; files without states load too."""
        entries = {name: store[name] for name in store.keys()}  # noqa: SIM118
        super().load_own_variables(
            {k: v for k, v in entries.items() if not k.startswith(_PREFIX)}
        )
        for index, state in enumerate(self._random_states()):
            if f"{_PREFIX}{index}" in entries:
                state.assign(entries[f"{_PREFIX}{index}"])

    def _random_states(self) -> list[Any]:
        return [v for v in self.base.variables if v.name == "seed_generator_state"]
