"""Watch what a model looks at while it trains."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_jsigr.attacks import PGD
from keras_jsigr.attacks.calls.inputs import check_model
from keras_jsigr.callbacks.attack_range import with_range_of
from keras_jsigr.callbacks.grid.lettering import check_plots
from keras_jsigr.callbacks.grid.measurement import Measurement, Measurer
from keras_jsigr.callbacks.grid.picture import draw_grid
from keras_jsigr.callbacks.grid.probe import check_probe
from keras_jsigr.callbacks.grid.record import Freq, Record
from keras_jsigr.callbacks.penalty.loss_shares import shares_of_epoch
from keras_jsigr.core import settings
from keras_jsigr.core.class_names import check_class_names
from keras_jsigr.core.scores import SCORES, ScoreName
from keras_jsigr.model import JSIGRModel
from keras_jsigr.penalties import PenaltySettings

FOLDER = "saliency"


class SaliencyGrid(keras.callbacks.Callback):
    """Draw the saliency maps of a few fixed images every few epochs or steps.

    A row for every image, with the columns: image, gradient map, perturbation map,
    gradient over image, adversarial image, its gradient map, and figures: `agreement`
    (rank correlation of gradient and perturbation map), `stability` (share of the top
    tenth of pixels that both gradient maps have in common), `sparsity` (Gini index) and
    `||J||` (Frobenius norm of the Jacobian of the logits, per unit of the range).

    Written to `<log_dir>/saliency`: `grid-epoch-0003.png` for every grid, `grid.gif` of
    all of them, and TensorBoard events (`saliency/...` and `penalty_share/...`).
    Number 0 is the model before its first epoch. A resumed training (`initial_epoch`,
    `BackupAndRestore`) goes on with number, file and film; give another training
    another `log_dir`.

    Works with hardened models and any Keras classifier of one image input. Only these
    few images are looked at, with functions compiled once, in inference mode and
    outside of any replica: training takes the same steps with it and without. Under a
    distribution strategy only the chief draws. Without `freq="batch"` Keras' loop over
    the batches does not know of this callback.

    Args:
        x: Images `(N, H, W)` or `(N, H, W, C)`, N up to 32, as `fit` receives them.
        y: Labels `(N,)` or one-hot; `None` explains and attacks the model's own
            decisions.
        log_dir: The folder that TensorBoard is started with.
        every: Epochs, or steps of the optimizer, between grids, >= 1.
        freq: `"epoch"` or `"batch"`. With `steps_per_execution` Keras reports every so
            many steps: the grid is drawn at the first report after it is due.
        epsilon: Radius of the adversarial images in input units, >= 0.
        norm: `"linf"`, `"l2"` or `"l1"`.
        attack_steps: Steps of PGD, >= 1.
        input_range: `(low, high)` of the images; `None`: that of the hardened model, or
            (0, 1).
        class_names: One per class, for the labels of the rows.
        score: What the gradient maps are of: `"margin"`, whose scale is the same for
            sure and unsure decisions, `"log_prob"` or `"logit"`.
        png: Whether to write a PNG file for every grid.
        gif: Whether to write the animated GIF; it is made of the PNG files.
        tensorboard: Whether to write events for TensorBoard.

    Raises:
        ValueError: If a setting is out of range or `x` holds no images; at the start of
            training, if they do not fit the model.
        ImportError: If pillow or matplotlib is not installed.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.callbacks import SaliencyGrid
        >>> SaliencyGrid(np.zeros((8, 28, 28, 1)), log_dir="runs").every
        1
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        log_dir: str | os.PathLike[str] = "runs",
        every: int = 1,
        freq: Freq = "epoch",
        epsilon: float = 0.1,
        norm: str = "linf",
        attack_steps: int = 10,
        input_range: tuple[float, float] | None = None,
        class_names: Sequence[str] | None = None,
        score: ScoreName = "margin",
        png: bool = True,
        gif: bool = True,
        tensorboard: bool = True,
    ) -> None:
        super().__init__()
        settings.choice("freq", freq, ("epoch", "batch"))
        settings.choice("score", score, SCORES)
        if gif and not png:
            raise ValueError(
                "The animation is made of the PNG files: got gif=True with png=False. "
                "Use gif=False too, or keep both."
            )
        check_plots()
        self.probe = check_probe(x, y)
        self.folder = Path(log_dir).expanduser() / FOLDER
        self.every = settings.count("every", every)
        self.freq = freq
        self.attack = PGD(
            epsilon=epsilon,
            norm=norm,
            steps=attack_steps,
            input_range=input_range or (0.0, 1.0),
            verbose=0,
        )
        self._range_given = input_range is not None
        self.class_names = class_names
        self.score = score
        self._record = Record(
            self.folder, freq, png=png, gif=gif, tensorboard=tensorboard
        )
        self._measure: Measurer | None = None
        self._watched: Any = None
        self._last = 0
        if freq == "batch":
            # Not a method of the class: where a callback has one, Keras waits for the
            # results of every batch.
            self.on_train_batch_end = self._after_batch

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Make ready for the model, on the chief."""
        if not self.model.distribute_strategy.extended.should_save_summary:
            self._measure = None
        elif self._watched is not self.model:
            self._measure = self._measurer()
            self._watched = self.model

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Draw the model as it is before the first epoch."""
        self._last = self._steps()
        if epoch == 0 and (self.freq == "epoch" or self._last == 0):
            self._show(0, {})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Draw the model if its epoch has come."""
        if self.freq == "epoch" and (epoch + 1) % self.every == 0:
            self._show(epoch + 1, logs or {})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the event file."""
        self._record.close()

    def _after_batch(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        before, self._last = self._last, self._steps()
        if self._last // self.every > before // self.every:
            self._show(self._last, logs or {})

    def _steps(self) -> int:
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

    def _measurer(self) -> Measurer:
        model = self.model
        check_model(model)
        known = model.settings if isinstance(model, JSIGRModel) else PenaltySettings()
        if not self._range_given:
            self.attack = with_range_of(model, self.attack)
        measurer = Measurer(model, self.probe, self.attack, self.score, known)
        if self.class_names is not None:
            check_class_names(self.class_names, measurer.classes)
        return measurer

    def _show(self, number: int, logs: dict[str, Any]) -> None:
        if self._measure is None:
            return
        seen = self._measure()
        self._record.add(number, self._picture(seen, number), self._scalars(seen, logs))

    def _picture(self, seen: Measurement, number: int) -> Any:
        attack = self.attack
        unit = "epoch" if self.freq == "epoch" else "step"
        return draw_grid(
            seen,
            title=f"{unit} {number} of {self.model.name}",
            attack=f"PGD-{attack.steps}, {attack.norm}, epsilon {attack.epsilon:g}",
            input_range=attack.input_range,
            class_names=self.class_names,
        )

    def _scalars(self, seen: Measurement, logs: dict[str, Any]) -> dict[str, float]:
        scalars = {f"saliency/{name}": value for name, value in seen.means().items()}
        if isinstance(self.model, JSIGRModel):
            shares = shares_of_epoch(self.model, logs)
            scalars |= {f"penalty_share/{name}": v for name, v in shares.items()}
        return scalars
