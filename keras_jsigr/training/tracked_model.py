"""Penalties shown beside the loss while training, and left out of validation."""

from __future__ import annotations

from typing import Any

import keras


class TrackedModel(keras.Model):
    """A model that reports the parts of its training loss."""

    def make_trackers(self, names: list[str]) -> None:
        """Create a running mean for every name; Keras resets them every epoch."""
        self._trackers = {name: keras.metrics.Mean(name=name) for name in names}

    def track(self, loss: Any, parts: dict[str, Any], count: Any) -> None:
        """Take the values of a step into the running means.

        Args:
            loss: Scalar, for Keras' own tracker.
            parts: Scalars by the names of the trackers.
            count: Number of examples they are means of.
        """
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=count)
        for name, value in parts.items():
            self._trackers[name].update_state(value, sample_weight=count)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Evaluate as the base does; the trackers stay out of it."""
        results = super().test_step(data)
        return {k: v for k, v in results.items() if k not in self._trackers}
