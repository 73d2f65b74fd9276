"""The codes of a table of maps, computed anew as its model changes."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_jsigr.core.choices import BaselineName, ChangeName
from keras_jsigr.core.scores import HeadKind
from keras_jsigr.saliency.batched import as_fit_sees, check_lengths, probe_of
from keras_jsigr.saliency.build_codes import Codes, build_codes
from keras_jsigr.saliency.hashed_examples import hashed_examples
from keras_jsigr.saliency.map_table import MapTable
from keras_jsigr.saliency.perturbation_map import perturbation_explainer
from keras_jsigr.saliency.sorted_rows import sorted_rows


class RefreshedCodes:
    """Compute the codes of a table again and again, by one compiled program.

    Args:
        model: A Keras classifier, a hardened model or a callable.
        table: The table of cached maps.
        x: The data that its cache was built from, `(N, *S)`.
        y: Their labels, or `None` if it was built without.
        baseline: What occludes, see `PerturbationCache.build`.
        score: As there.
        kind: As there.

    Raises:
        ValueError: If the table is of other examples.

    Example:
        >>> import keras, numpy as np
        >>> import keras_jsigr as kj
        >>> from keras_jsigr.saliency.map_table import MapTable
        >>> from keras_jsigr.saliency.refreshed_codes import RefreshedCodes
        >>> x = np.random.default_rng(0).uniform(size=(4, 6, 6, 1)).astype("float32")
        >>> net = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten()])
        >>> cache = kj.PerturbationCache.build(net, x, grid=2, verbose=0)
        >>> codes = RefreshedCodes(net, MapTable.from_cache(cache), x)()
        >>> bool((codes == cache.codes).all())
        True
    """

    def __init__(
        self,
        model: Any,
        table: MapTable,
        x: Any,
        y: Any = None,
        *,
        baseline: BaselineName = "blur",
        score: ChangeName = "squared_logits",
        kind: HeadKind = "softmax",
    ) -> None:
        self._x = np.asarray(as_fit_sees(x))
        self._y = None if y is None else np.asarray(y)
        check_lengths(self._x, self._y)
        keys = hashed_examples(self._x)
        self._rows = sorted_rows(keys, self._x)
        if not np.array_equal(keys[self._rows], table.keys):
            raise ValueError(
                "RefreshMaps got other examples than the maps are of: the training "
                "would find none of them. Pass the very arrays that the cache was "
                "built from and `fit` receives, of the same scaling."
            )
        self._explain = perturbation_explainer(
            model,
            probe_of(self._x),
            table.bank,
            baseline=baseline,
            score=score,
            kind=kind,
            maps=False,
        )

    def __call__(self, verbose: int = 0) -> Codes:
        """Return the codes with the model's present weights, in the table's order.

        Args:
            verbose: 1 shows a progress bar, 0 none.

        Returns:
            Uint8 `(rows, K)`.
        """
        codes = build_codes(
            self._explain, self._x, self._y, partial=None, identity={}, verbose=verbose
        )
        return codes[self._rows]
