"""The transfer family: one attack with all tricks, each a setting."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Self

import keras
import tensorflow as tf

from keras_jsigr.attacks.balls.ball import Ball
from keras_jsigr.attacks.search.iterate import Iterate
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.seeds import fold_in
from keras_jsigr.attacks.transfer.transformed_mifgsm import TransformedMIFGSM
from keras_jsigr.attacks.transfer.variance_tuning import gradient_variance
from keras_jsigr.core import settings
from keras_jsigr.core.logits import LogitsFn


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class TransferAttack(TransformedMIFGSM):
    """Combine the tricks by which adversarial examples of one model fool another.

    MI-FGSM, with any of: Nesterov's look ahead (NI), diverse inputs (DI), a smoothed
    gradient (TI), scaled copies (SI), variance tuning (V). In step t the model is asked
    at `p = x_t + momentum * step_size * m_t` (NI), or at `x_t`:

    - `g = mean_{i < scales} grad_x L(diverse(p / 2^i))`, and `g + V` if tuned;
    - `m_{t+1} = momentum * m_t + g / mean |g|`, `g` smoothed before;
    - `V = mean_{i < variance_samples} g(x_t + r_i) - g` for the next step.

    Attack a surrogate, best a `LogitsEnsemble` of several, and show the result to the
    model in question.

    Args:
        epsilon: Radius in input units, >= 0.
        nesterov: Whether the gradient is taken where the momentum leads.
        diversity: Probability, 0 to 1, of showing an image shrunk and shifted.
        diversity_scale: The smallest size then, a share of the side, above 0, below 1.
        kernel_size: Length of the Gaussian that smooths the gradient, an odd number of
            pixels; 0 for none, `"auto"` for 15 from 200 pixels on, else 5.
        scales: Number of copies `x / 2^i`, >= 1.
        variance_samples: Number of neighbours that tune the gradient; 0 for none.
        variance_range: Radius of their neighbourhood, in multiples of `epsilon`.
        steps: Number of gradient steps, >= 1.
        momentum: Weight of the former steps, >= 0.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` of valid inputs.
        loss: `"cross_entropy"`, `"margin"` or `"dlr"`.
        targeted: Whether `y` is the class to reach.
        step_size: In input units; default `epsilon / steps`.
        random_start: Whether to start at a random point of the ball.
        restarts: Number of tries; per example the strongest is kept.
        early_stop: Whether to leave an example alone once it is misclassified.
            Keep it off for examples that are to fool another model.
        batch_size: Number of examples worked on at once.
        seed: Of everything random.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range; in a call, if diversity or smoothing
            is on and the inputs are no images `(N, H, W, C)`.

    Reference:
        arXiv 1710.06081 (MI), 1908.06281 (NI, SI), 1803.06978 (DI), 1904.02884 (TI),
        2103.15571 (V).

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.transfer.transfer_attack import TransferAttack
        >>> attack = TransferAttack(
        ...     epsilon=0.1, nesterov=True, diversity=0.5, kernel_size="auto", scales=5
        ... )
        >>> attack.name
        'SI-NI-DI-TI-FGSM'
        >>> x = np.array([[0.5, 0.75]], "float32")
        >>> attack = TransferAttack(epsilon=0.25, variance_samples=5)
        >>> attack(lambda x: x, x, [1]).round(6).tolist()
        [[0.75, 0.5]]
    """

    variance_samples: int = 0
    variance_range: float = 1.5
    # Inside a search: the model and the seed, for the neighbours.
    _run: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the settings and bring them to their plain Python types."""
        samples = settings.count("variance_samples", self.variance_samples, minimum=0)
        self._set("variance_samples", samples)
        radius = settings.number(
            "variance_range", self.variance_range, minimum=0.0, above=True
        )
        self._set("variance_range", radius)
        super().__post_init__()

    @property
    def name(self) -> str:
        """The tricks that are on, such as `"SI-NI-DI-TI-FGSM"`."""
        steps = "NI" if self.nesterov else "MI" if self.momentum > 0.0 else "I"
        parts = [
            "SI" if self.scales > 1 else "",
            ("V" if self.variance_samples else "") + steps,
            "DI" if self.diversity > 0.0 else "",
            "TI" if self.kernel_size else "",
            "FGSM",
        ]
        return "-".join(part for part in parts if part)

    @property
    def passes(self) -> int:
        """Number of gradients per example."""
        return super().passes * (1 + self.variance_samples)

    @property
    def sums_gradients(self) -> bool:
        """Whether gradients from several points are added, so that lengths count."""
        return self.variance_samples > 0 or super().sums_gradients

    def momentum_of(self, state: Any) -> tf.Tensor:
        """Return the gathered gradient, like `x`, out of the state."""
        return state[0] if self.variance_samples else state

    def start_state(self, x: tf.Tensor) -> Any:
        """Return no momentum yet, and no variance if it is tuned."""
        momentum = super().start_state(x)
        return (momentum, tf.zeros_like(x)) if self.variance_samples else momentum

    def update(self, ball: Ball, iterate: Iterate) -> tuple[tf.Tensor, Any]:
        """Return the next point, momentum and variance."""
        if not self.variance_samples:
            return super().update(ball, iterate)
        momentum, variance = iterate.state
        tuned = iterate._replace(gradient=iterate.gradient + variance, state=momentum)
        x, momentum = super().update(ball, tuned)
        variance = tf.cond(  # The last one would serve no step.
            iterate.step + 1 < self.steps,
            lambda: self._variance(iterate),
            lambda: tf.zeros_like(variance),
        )
        return x, (momentum, tf.ensure_shape(variance, x.shape))

    def search(
        self, logits_fn: LogitsFn, problem: Problem, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch and keep the strongest point; see `Attack.search`."""
        run = self._in_run(logits_fn, seed)
        return super(TransferAttack, run).search(logits_fn, problem, seed)

    def perturb(
        self, logits_fn: LogitsFn, x: tf.Tensor, targets: tf.Tensor, *, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return adversarial examples inside another function; see `MIFGSM.perturb`."""
        run = self._in_run(logits_fn, seed)
        return super(TransferAttack, run).perturb(logits_fn, x, targets, seed=seed)

    def _in_run(self, logits_fn: LogitsFn, seed: tf.Tensor) -> Self:
        run = copy.copy(self)
        run._set("_run", (logits_fn, fold_in(seed, -1)))
        return run

    def _variance(self, iterate: Iterate) -> tf.Tensor:
        logits_fn, seed = self._run
        problem = iterate.problem

        def gradient_at(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            return self.mean_gradient(logits_fn, x, problem, seed)[0]

        variance = gradient_variance(
            gradient_at,
            iterate.x,
            iterate.gradient,
            fold_in(seed, iterate.step),
            radius=self.variance_range * self.epsilon,
            samples=self.variance_samples,
            norm=self.norm,
            region=problem.region,
        )
        finite = tf.math.is_finite(variance)
        return tf.where(finite, variance, tf.zeros_like(variance))
