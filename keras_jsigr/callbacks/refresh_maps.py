"""Keep cached perturbation maps in step with the model that is training."""

from __future__ import annotations

from typing import Any

import keras

from keras_jsigr.callbacks.robust_accuracy import check_arrays
from keras_jsigr.core import arguments
from keras_jsigr.core.heads import head_kind
from keras_jsigr.saliency.cache import RefreshedCodes


class RefreshMaps(keras.callbacks.Callback):
    """Compute the cached perturbation maps anew from the model every few epochs.

    The maps of a frozen teacher say what mattered to the teacher; refreshed maps say
    what matters to the model itself. A refresh costs one pass over the `K` masks of the
    cache, `K / 3` plain steps per sample. Baseline and score are those of
    `model.config.live_maps`.

    Args:
        x: The training inputs that the cache was built from, float `(N, *S)`.
        y: Their labels, or `None` if the cache was built without.
        every: Number of epochs between refreshes, >= 1.
        start: Epoch of the first refresh, counted from 0.
        verbose: Whether to show a progress bar for each refresh.

    Raises:
        TypeError: If `every` or `start` is no integer.
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
        check_arrays("RefreshMaps", (x, y))
        self.x = x
        self.y = y
        self.every = arguments.count("every", every)
        self.start = arguments.count("start", start, minimum=0)
        self.verbose = verbose

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check that the model has cached maps of these examples."""
        if getattr(self.model, "map_table", None) is None:
            raise ValueError(
                "RefreshMaps needs cached maps: got a model without. Harden it with "
                "`saliency_maps=PerturbationCache.build(model, x, y)`."
            )
        # Anew in every training, because model and loss may have changed.
        model, maps = self.model, self.model.config.live_maps
        self._codes = RefreshedCodes(
            model,
            model.map_table,
            self.x,
            self.y,
            baseline=maps.baseline,
            score=maps.score,
            kind=head_kind(model, model.head, model.classes),
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Refresh the maps every `every` epochs."""
        if epoch >= self.start and (epoch - self.start) % self.every == 0:
            verbose = int(arguments.is_verbose(self.verbose))
            self.model.map_table.codes.assign(self._codes(verbose))
