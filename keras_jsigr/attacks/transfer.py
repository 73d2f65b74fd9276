"""Attacks whose examples are to fool other models: MI-FGSM and its relatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.base import AttackContext
from keras_jsigr.attacks.gradient_attack import GradientAttack, StepState, expand_dims_like
from keras_jsigr.attacks.losses import loss_slope
from keras_jsigr.attacks.norms import mean_normalize
from keras_jsigr.core import arguments
from keras_jsigr.core.batching import chunked_sum
from keras_jsigr.core.random import ALGORITHM, fold_in


def image_sides(shape: Sequence[int | None], method: str) -> tuple[int, int]:
    """Return height and width of a batch of images."""
    if len(shape) != 4 or shape[1] is None or shape[2] is None:
        raise ValueError(
            f"{method} needs images: got inputs of shape {tuple(shape)[1:]}, expected "
            "(height, width, channels) of a fixed size. Add the channel axis to grey "
            "images; for other data use a method without it, such as MIFGSM."
        )
    return int(shape[1]), int(shape[2])


# A vector of ones has length d^power.
_POWERS = {"linf": 0.0, "l2": 0.5, "l1": 1.0}


def per_component_step(length: Any, x: tf.Tensor, norm: str) -> tf.Tensor:
    """Compute the size of each component of an even perturbation of this length."""
    components = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), x.dtype)
    return tf.cast(length, x.dtype) / components ** _POWERS[norm]


# The paper's kernel at 299 pixels, and one for 28 to 32 pixels.
_LARGE_SIDE, _LARGE_KERNEL, _SMALL_KERNEL = 200, 15, 5


def default_kernel(height: int, width: int) -> int:
    """Return the kernel length for an image size: 15 from 200 pixels on, else 5."""
    return _LARGE_KERNEL if max(height, width) >= _LARGE_SIDE else _SMALL_KERNEL


def gaussian_kernel(length: int) -> npt.NDArray[np.float64]:
    """Compute a Gaussian at `length` points from -3 to 3 standard deviations."""
    points = np.linspace(-3.0, 3.0, length) if length > 1 else np.zeros(1)
    weights = np.exp(-0.5 * points**2)
    kernel: npt.NDArray[np.float64] = weights / weights.sum()
    return kernel


def smooth_gradient(gradient: tf.Tensor, length: int) -> tf.Tensor:
    """Convolve each channel with a Gaussian, with zeros outside of the image."""
    image_sides(gradient.shape, "Gradient smoothing")
    channels = gradient.shape[3]
    kernel = tf.constant(gaussian_kernel(length), gradient.dtype)
    # The kernel is a product: two thin convolutions do the work of one square.
    for shape in ((length, 1, 1, 1), (1, length, 1, 1)):
        weights = tf.tile(tf.reshape(kernel, shape), (1, 1, channels, 1))
        gradient = tf.nn.depthwise_conv2d(gradient, weights, (1, 1, 1, 1), "SAME")
    return gradient


def input_diversity(
    x: tf.Tensor,
    seed: tf.Tensor,
    *,
    probability: float = 0.5,
    scale: float = 0.9,
    fill: float = 0.0,
) -> tf.Tensor:
    """Shrink each image with some probability, anywhere on an empty canvas."""
    height, width = image_sides(x.shape, "Input diversity")
    examples = tf.shape(x)[:1]

    def uniform(stream: int) -> tf.Tensor:
        return tf.random.stateless_uniform(
            examples, fold_in(seed, stream), dtype=x.dtype, alg=ALGORITHM
        )

    apply, size = uniform(0) < probability, uniform(1)
    rows = _shrink(height, scale, apply, size, uniform(2))
    columns = _shrink(width, scale, apply, size, uniform(3))
    flat = tf.reshape(x, (-1, height, width * x.shape[3]))
    y = tf.reshape(rows @ flat, tf.shape(x))
    y = columns[:, tf.newaxis] @ y
    if fill != 0.0:
        # Each weight row sums to one inside the image and to zero in the frame.
        inside = (tf.reduce_sum(m, axis=2) for m in (rows, columns))
        y += fill * (1.0 - tf.einsum("bi,bj->bij", *inside)[..., tf.newaxis])
    return tf.ensure_shape(y, x.shape)


def _shrink(
    side: int, scale: float, apply: tf.Tensor, size: tf.Tensor, shift: tf.Tensor
) -> tf.Tensor:
    """Return the matrices `(B, side, side)` that shrink and shift one axis."""
    dtype = size.dtype
    smallest = max(1, int(scale * side))
    kept = smallest + tf.floor(size * max(side - smallest, 0))
    kept = tf.where(apply, kept, tf.cast(side, dtype))
    offset = tf.floor(shift * (side - kept + 1.0))
    pixel = tf.range(side, dtype=dtype)
    place = pixel - offset[:, tf.newaxis]
    kept = kept[:, tf.newaxis]
    # Half-pixel centres; outside the outermost centres the border repeats.
    source = tf.clip_by_value((place + 0.5) * (side / kept) - 0.5, 0.0, side - 1.0)
    weights = tf.nn.relu(1.0 - tf.abs(source[..., tf.newaxis] - pixel))
    inside = (place >= 0.0) & (place < kept)
    return tf.where(inside[..., tf.newaxis], weights, 0.0)


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class MIFGSM(GradientAttack):
    """Take small steps along gathered gradients: weaker at home, better transferred.

    `m_{t+1} = momentum * m_t + g_t / mean_i |g_ti|` and
    `x_{t+1} = project(x_t + step_size * sign(m_{t+1}))`, with `m / ||m||_2` for the
    sign under `norm="l2"` (arXiv 1710.06081). Other arguments are those of
    `GradientAttack`; leave `early_stop` off for transfer.

    Args:
        momentum: Weight of the former steps, >= 0.
        step_size: In input units; default `epsilon / steps`.

    Example:
        >>> import numpy as np, keras_jsigr as kj
        >>> kj.attacks.MIFGSM(0.25)(lambda x: x, np.array([[0.5, 1]]), [1]).round(2)
        array([[0.75, 0.75]])
    """

    steps: int = 10
    momentum: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._normalize(arguments.number, "momentum", minimum=0.0)

    @classmethod
    def nips2017(cls, *, input_range: tuple[float, float] = (0.0, 1.0), **others: Any) -> Self:
        """Make the attack that won the NIPS 2017 competition (arXiv 1710.06081).

        Radius 16/255 of the range, 10 steps of a tenth of it, momentum 1, no random start. The
        authors ran it on an ensemble in logits, with the ensemble's own decisions for labels:
        `MIFGSM.nips2017()(LogitsEnsemble(models, weights), x)`. Their auxiliary heads of the
        Inception networks are left out. `others` are further settings.

        Example:
            >>> from keras_jsigr.attacks import MIFGSM
            >>> MIFGSM.nips2017(input_range=(0.0, 255.0)).epsilon
            16.0
        """
        low, high = arguments.interval("input_range", input_range)
        fixed = {"steps": 10, "momentum": 1.0, "random_start": False}
        epsilon = 16.0 * (high - low) / 255.0
        return cls(epsilon=epsilon, input_range=(low, high), **(fixed | others))

    def start_state(self, context: AttackContext, x: tf.Tensor) -> Any:
        """Return no momentum yet."""
        return tf.zeros_like(x)

    def direction(self, gradient: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        """Return the gathered gradient, which is the new state too."""
        gathered = self.momentum * state + mean_normalize(gradient)
        return gathered, gathered


def scale_copy(x: tf.Tensor, number: Any) -> tf.Tensor:
    """Compute copy `number` of the inputs, `x / 2^number`."""
    return x * tf.cast(0.5, x.dtype) ** tf.cast(number, x.dtype)


def _odd(name: str, value: Any) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    length = arguments.count(name, value, minimum=0)
    if length and length % 2 == 0:
        raise ValueError(
            f"`{name}` has no middle: got {length}, expected an odd number of pixels, "
            f"0 or 'auto'. Pass {length + 1}."
        )
    return length


GradientFn = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def gradient_variance(
    gradient_at: GradientFn,
    x: tf.Tensor,
    gradient: tf.Tensor,
    seed: tf.Tensor,
    *,
    radius: Any,
    samples: int = 5,
    norm: str = "linf",
    region: tf.Tensor | None = None,
) -> tf.Tensor:
    """Compute `V(x) = (1 / N) sum_i grad L(x + r_i) - gradient`."""
    side = per_component_step(radius, x, norm)

    def near(number: Any, _: int) -> tf.Tensor:
        stream = fold_in(seed, number)
        noise = tf.random.stateless_uniform(
            tf.shape(x), fold_in(stream, 0), -1.0, 1.0, x.dtype, alg=ALGORITHM
        )
        noise = noise if region is None else noise * region
        return gradient_at(x + side * noise, fold_in(stream, 1))

    return chunked_sum(samples, 1, near, x) / samples - gradient


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class TransferAttack(MIFGSM):
    """Combine the tricks by which adversarial examples of one model fool another.

    MI-FGSM, with any of: Nesterov's look ahead (NI), diverse inputs (DI), a smoothed
    gradient (TI), scaled copies (SI), variance tuning (V). In step t the model is asked
    at `p = x_t + momentum * step_size * m_t` (NI), or at `x_t`:

    - `g = mean_{i < scales} grad_x L(diverse(p / 2^i))`, and `g + V` if tuned;
    - `m_{t+1} = momentum * m_t + g / mean |g|`, `g` smoothed before;
    - `V = mean_{i < variance_samples} g(x_t + r_i) - g` for the next step.

    Attack a surrogate, best a `LogitsEnsemble` of several. References: arXiv 1710.06081
    (MI), 1908.06281 (NI, SI), 1803.06978 (DI), 1904.02884 (TI), 2103.15571 (V). Other
    arguments are those of `MIFGSM`.

    Args:
        nesterov: Whether the gradient is taken where the momentum leads.
        diversity: Probability, 0 to 1, of showing an image shrunk and shifted.
        diversity_scale: The smallest size then, a share of the side, above 0, below 1.
        kernel_size: Length of the Gaussian that smooths the gradient, an odd number of
            pixels; 0 for none, `"auto"` for 15 from 200 pixels on, else 5.
        scales: Number of copies `x / 2^i`, >= 1.
        variance_samples: Number of neighbours that tune the gradient; 0 for none.
        variance_range: Radius of their neighbourhood, in multiples of `epsilon`.

    Example:
        >>> from keras_jsigr.attacks import TransferAttack
        >>> TransferAttack(0.1, nesterov=True, diversity=0.5, kernel_size="auto").name
        'NI-DI-TI-FGSM'
    """

    nesterov: bool = False
    diversity: float = 0.0
    diversity_scale: float = 0.9
    kernel_size: int | Literal["auto"] = 0
    scales: int = 1
    variance_samples: int = 0
    variance_range: float = 1.5

    def __post_init__(self) -> None:
        arguments.choice("nesterov", self.nesterov, (False, True))
        self._normalize(arguments.share, "diversity")
        self._normalize(arguments.share, "diversity_scale", ends="()")
        self._normalize(_odd, "kernel_size")
        self._normalize(arguments.count, "scales")
        self._normalize(arguments.count, "variance_samples", minimum=0)
        self._normalize(arguments.number, "variance_range", minimum=0.0, above=True)
        self._set("stochastic", self.diversity > 0.0)
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
        return super().passes * self.scales * (1 + self.variance_samples)

    def start_state(self, context: AttackContext, x: tf.Tensor) -> Any:
        """Return no momentum yet, and no variance if it is tuned."""
        momentum = super().start_state(context, x)
        return (momentum, tf.zeros_like(x)) if self.variance_samples else momentum

    def transform(self, x: tf.Tensor, state: Any, seed: tf.Tensor) -> tf.Tensor:
        """Return what the model sees in place of `x`; `state` numbers the copy."""
        if self.scales > 1:
            x = scale_copy(x, state)
        if self.diversity > 0.0:
            low, high = self.input_range or (0.0, 1.0)
            x = input_diversity(
                x,
                seed,
                probability=self.diversity,
                scale=self.diversity_scale,
                fill=min(max(0.0, low), high),
            )
        return x

    def gradient(
        self, context: AttackContext, x: tf.Tensor, *, state: Any, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Return the mean gradient over the copies, and the logits if `x` was seen."""
        if not self.nesterov:
            return self.mean_gradient(context, x, seed)
        # The momentum has mean magnitude one per step it gathered.
        length = self.step_length(context.epsilon)
        length = self.momentum * per_component_step(length, x, self.norm)
        ahead = x + length * (state[0] if self.variance_samples else state)
        return self.mean_gradient(context, ahead, seed)[0], None

    def direction(self, gradient: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        """Smooth the gradient and gather it."""
        if self.kernel_size:
            length = self.kernel_size
            if length == "auto":
                length = default_kernel(*image_sides(gradient.shape, "Smoothing"))
            gradient = smooth_gradient(gradient, length)
        return super().direction(gradient, state)

    def mean_gradient(
        self, context: AttackContext, x: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Return the mean gradient over the copies of `x`, and the logits at `x`."""
        if self.scales == 1:
            return self._gradient_of_copy(0, context, x, seed)

        def term(number: tf.Tensor, _: int) -> tf.Tensor:
            return self._gradient_of_copy(number, context, x, fold_in(seed, number))[0]

        return chunked_sum(self.scales, 1, term, x) / self.scales, None

    def _gradient_of_copy(
        self, number: Any, context: AttackContext, x: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        seen: list[tf.Tensor] = []

        def noted(inputs: tf.Tensor) -> tf.Tensor:
            seen.append(context.logits_fn(inputs))
            return seen[-1]

        noting = context._replace(logits_fn=noted)
        gradient, logits = super().gradient(noting, x, state=number, seed=seed)
        if self.scales > 1 or self.variance_samples:
            # In a sum the lengths count; alone, the direction is all.
            slope = loss_slope(seen[0], context.targets, self.loss)
            gradient *= tf.cast(expand_dims_like(slope, x), gradient.dtype)
        return gradient, logits

    def update(self, context: AttackContext, now: StepState) -> tuple[tf.Tensor, Any]:
        """Return the next point, momentum and variance."""
        if not self.variance_samples:
            return super().update(context, now)
        momentum, variance = now.state
        tuned = now._replace(gradient=now.gradient + variance, state=momentum)
        x, momentum = super().update(context, tuned)
        variance = tf.cond(  # The last one would serve no step.
            now.step + 1 < self.steps,
            lambda: self._variance(context, now),
            lambda: tf.zeros_like(variance),
        )
        return x, (momentum, tf.ensure_shape(variance, x.shape))

    def _variance(self, context: AttackContext, now: StepState) -> tf.Tensor:
        def gradient_at(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            return self.mean_gradient(context, x, seed)[0]

        variance = gradient_variance(
            gradient_at,
            now.x,
            now.gradient,
            fold_in(fold_in(context.seed, -1), now.step),
            radius=self.variance_range * context.epsilon,
            samples=self.variance_samples,
            norm=self.norm,
            region=context.region,
        )
        finite = tf.math.is_finite(variance)
        return tf.where(finite, variance, tf.zeros_like(variance))


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class NIFGSM(TransferAttack):
    """`TransferAttack` with `nesterov=True`: look ahead (arXiv 1908.06281).

    Example:
        >>> from keras_jsigr.attacks import NIFGSM
        >>> NIFGSM(epsilon=0.1, scales=5).name
        'SI-NI-FGSM'
    """

    nesterov: bool = True


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class DIFGSM(TransferAttack):
    """`TransferAttack`, `diversity=0.5`: images shrunk and moved (arXiv 1803.06978).

    Example:
        >>> from keras_jsigr.attacks import DIFGSM
        >>> DIFGSM(epsilon=0.1).name
        'MI-DI-FGSM'
    """

    diversity: float = 0.5


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class TIFGSM(TransferAttack):
    """`TransferAttack`, `kernel_size="auto"`: smooth the gradient (arXiv 1904.02884).

    Example:
        >>> from keras_jsigr.attacks import TIFGSM
        >>> TIFGSM(epsilon=0.1).name
        'MI-TI-FGSM'
    """

    kernel_size: int | Literal["auto"] = "auto"


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class SIFGSM(TransferAttack):
    """`TransferAttack` with `scales=5`: copies of halved brightness (arXiv 1908.06281).

    Example:
        >>> from keras_jsigr.attacks import SIFGSM
        >>> SIFGSM(epsilon=0.1).name
        'SI-MI-FGSM'
    """

    scales: int = 5


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class VMIFGSM(TransferAttack):
    """`TransferAttack` with `variance_samples=5` (arXiv 2103.15571, which takes 20).

    Example:
        >>> from keras_jsigr.attacks import VMIFGSM
        >>> VMIFGSM(epsilon=0.1).name
        'VMI-FGSM'
    """

    variance_samples: int = 5
