"""Attribution methods of Xplique 2 under the contract of this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core import settings
from keras_jsigr.core.as_float import as_float
from keras_jsigr.core.heads import Head, find_head
from keras_jsigr.core.logits import as_classes, as_logits
from keras_jsigr.core.scores import SCORES, ScoreName, class_score
from keras_jsigr.core.unwrapped import unwrapped
from keras_jsigr.saliency.batched import Core, as_fit_sees
from keras_jsigr.saliency.layout import map_axes, resolve_layout
from keras_jsigr.saliency.methods.explainer import Explainer
from keras_jsigr.saliency.methods.method import SaliencyMethod, targets_of


@dataclass(frozen=True, kw_only=True)
class XpliqueMethod(SaliencyMethod):
    """Run an attribution method of Xplique: LIME, KernelSHAP, Sobol, HSIC and others.

    The method is Xplique's; its rough edges are taken off: a softmax or sigmoid head is
    seen behind, the score is the same as elsewhere in this package, labels are taken in
    any form, and its cache of models, which may return another one, is emptied. The
    methods that look at layers (`GradCAM`, `GradCAMPP`, `FEM`) explain the logit
    whatever the score. Xplique works eagerly and mostly image by image: expect it to be
    slow. Random methods follow `tf.random.set_seed` and `np.random.seed`.

    Xplique names TensorFlow up to 2.20 in its build for CUDA and runs with 2.21:
    install it without its dependencies, as requirements/explainers.txt lists them.

    Args:
        attribution: The name of a class in `xplique.attributions`, such as `"Lime"`.
        settings: Its arguments, such as `{"nb_samples": 200}`.
        score: `"log_prob"`, `"margin"` or `"logit"`, see `class_score`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ImportError: When a model is to be explained and Xplique is missing.
        ValueError: If a setting is out of range, then or now.

    Reference:
        arXiv 2206.04394 (Xplique).

    Example:
        >>> from keras_jsigr.saliency.peers.xplique import XpliqueMethod
        >>> XpliqueMethod(attribution="Lime", settings={"nb_samples": 200}).score
        'logit'
    """

    attribution: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    score: ScoreName = "logit"

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        settings.choice("score", self.score, SCORES)

    def explainer(self, model: Any, probe: Any, batch_size: int = 128) -> Explainer:
        """Make Xplique's explainer for a model.

        Args:
            model: A Keras classifier, a hardened model or a callable.
            probe: A batch of inputs, at least one.
            batch_size: Examples that the model sees at once.

        Returns:
            The reusable function; it is not compiled as a whole.
        """
        method, classes = self.fitted(model, as_float(probe))
        return _XpliqueExplainer(method, model, probe, batch_size, classes)

    def core(self, model: Any, probe: Any) -> Core:
        """Return the traceable function of `(x, y)` that computes the targets."""
        logits_fn = as_logits(model, probe)
        return lambda x, y: targets_of(y, self.known_kind)(logits_fn(x))


class _XpliqueExplainer(Explainer):
    """Find the targets batch by batch, then let Xplique explain."""

    def __init__(
        self,
        method: XpliqueMethod,
        model: Any,
        probe: Any,
        batch_size: int,
        classes: int,
    ) -> None:
        super().__init__(method, method.core(model, probe), batch_size, classes)
        make = _attribution(method.attribution)
        layout = resolve_layout(tuple(probe.shape[1:]), method.layout)
        self._rank = 1 + map_axes(layout)
        model, self._head = _subject(model, probe)

        def operator(f: Any, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            z = as_classes(tf.cast(f(x), tf.float32))
            return class_score(z, y, method.score, method.known_kind)

        with self._head.removed():
            self._peer = make(
                model, batch_size=batch_size, operator=operator, **method.settings
            )

    def __call__(self, x: Any, y: Any = None) -> Any:
        """Return the maps, NumPy for NumPy; see `BatchedExplainer`."""
        x, targets = as_fit_sees(x), super().__call__(x, y)
        with self._head.removed():
            maps = self._peer.explain(tf.cast(x, tf.float32), targets)
        maps = tf.cast(maps, tf.float32)
        if maps.shape.rank > self._rank and maps.shape[-1] == 1:
            maps = maps[..., 0]
        return maps if tf.is_tensor(x) else np.asarray(maps)


def _subject(model: Any, probe: Any) -> tuple[Any, Head]:
    """Return what Xplique is given, and the head that has to be off meanwhile."""
    if not isinstance(model, keras.Model):
        return as_logits(model, probe), Head("linear")
    model = unwrapped(model)
    return model, find_head(model, probe)


def _attribution(name: str) -> Any:
    module = _import_xplique()
    known = sorted(n for n in module.__all__ if isinstance(getattr(module, n), type))
    settings.choice("attribution", name, known)
    return getattr(module, name)


def _import_xplique() -> ModuleType:
    try:
        from xplique import attributions
        from xplique.attributions.base import BlackBoxExplainer
    except ImportError as error:
        raise ImportError(
            "XpliqueMethod needs Xplique: expected the package `xplique`. "
            "It names an older TensorFlow: install it by `pip install --no-deps -r "
            "requirements/explainers.txt` in a clone of keras_jsigr."
        ) from error
    # It is keyed by the id of a list that may be gone, so it can answer with the model
    # of an earlier explainer.
    BlackBoxExplainer._cache_models.clear()
    module: ModuleType = attributions
    return module
