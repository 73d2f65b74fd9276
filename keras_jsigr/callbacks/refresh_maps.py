"""Keep cached perturbation maps in step with the model that is training."""

from __future__ import annotations

from typing import Any

import keras

from keras_jsigr.core.heads import head_kind
from keras_jsigr.saliency.cache import RefreshedCodes


class RefreshMaps(keras.callbacks.Callback):
    """Compute the cached perturbation maps anew from the model every few epochs.

    The maps of a frozen teacher say what mattered to the teacher. Refreshed maps say
    what matters to the model itself, for the price of one pass over the grid every
    `every` epochs (`K / 3` plain steps per sample). Occlusion and score are those of
    the model's settings, the masks those of its cache.

    Args:
        x: The training inputs that the cache was built from, float `(N, *S)`.
        y: Their labels, or `None` if the cache was built without.
        every: Number of epochs between refreshes, >= 1.
        start: Epoch of the first refresh, counted from 0.
        verbose: 1 shows a progress bar for each refresh, 0 none.

    Raises:
        ValueError: If `every` or `start` is out of range; at the start of training,
            if the model has no cached maps, or maps of other examples.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.callbacks import RefreshMaps
        >>> RefreshMaps(np.zeros((4, 8, 8, 1), "float32"), every=2).every
        2
    """

    _codes: RefreshedCodes

    def __init__(
        self, x: Any, y: Any = None, *, every: int = 5, start: int = 1, verbose: int = 0
    ) -> None:
        super().__init__()
        if every < 1 or start < 0:
            raise ValueError(
                f"Got every={every}, start={start}: expected every >= 1 and start >= 0."
            )
        self.x = x
        self.y = y
        self.every = every
        self.start = start
        self.verbose = verbose

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Refuse a model without cached maps."""
        if getattr(self.model, "map_table", None) is None:
            raise ValueError(
                "RefreshMaps needs cached maps: got a model without. Harden it with "
                "`maps=PerturbationCache.build(model, x, y)`."
            )
        # Now, not when it is due: other examples are told before anything is trained.
        # Anew in every training: the model or its loss may be another one.
        self._codes = self._refreshed_codes()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Refresh the maps when their epoch has come."""
        if epoch < self.start or (epoch - self.start) % self.every:
            return
        self.model.map_table.codes.assign(self._codes(self.verbose))

    def _refreshed_codes(self) -> RefreshedCodes:
        model, settings = self.model, self.model.settings
        return RefreshedCodes(
            model,
            model.map_table,
            self.x,
            self.y,
            baseline=settings.baseline,
            score=settings.saliency_score,
            kind=head_kind(model, model.head, model.classes),
        )
