"""The one contract of all attacks: `attack(model, x, y) -> x_adv`."""

from __future__ import annotations

import copy
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Self, get_args

import tensorflow as tf

from keras_jsigr.attacks.balls.ball import BALLS
from keras_jsigr.attacks.calls.batches import run_batches
from keras_jsigr.attacks.calls.programs import Programs
from keras_jsigr.attacks.objectives.losses import LossName, attack_loss
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.core import settings
from keras_jsigr.core.logits import LogitsFn

# What an attack sees of the model: all of it, outputs, only decisions, or nothing.
Access = Literal["white box", "black box", "decision", "noise"]


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Search near each input for a point that the model gets wrong.

    `x_adv = argmax loss(model(x'), y)` over `||x' - x|| <= epsilon` and `x'` in
    `input_range`; with `targeted=True` the loss of the class `y` is driven down.

    Calling: `attack(model, x, y=None, *, epsilons=None, region=None)`. `model` is a
    hardened model, a Keras classifier (a softmax head is seen behind) or a callable
    that returns `(B, C)`; it is traced once per input shape and assumed not to change
    but for its weights. `x` is float `(N, *S)`; `y` holds class indices `(N,)` or
    `(N, 1)`, or one-hot rows; `None` stands for the model's own decisions at `x`.
    `region` is 1 where an input may change and 0 elsewhere, of shape `(N, *S)` or one
    that broadcasts to it; an image may leave out its channels. Returns an array or
    tensor like `x`, the same for the same seed, in the ball and the range to 1e-6 (of
    the range's larger end if that is above one: float32 is no finer at 255); with
    `epsilons` a list of them, one per radius, by the same compiled program.

    Args:
        epsilon: Radius in input units, >= 0; 0 returns `x`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` of valid inputs.
        loss: `"cross_entropy"`, `"margin"` (largest other logit minus target logit) or
            `"dlr"` (the margin over the spread of the largest logits).
        targeted: Whether `y` is the class to reach instead of the one to leave.
        batch_size: Number of examples worked on at once.
        seed: Of everything random; an int >= 0.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Raises:
        TypeError: If a setting, or `x` in a call, has the wrong type.
        ValueError: If a setting is out of range; in a call, if `x` or `y` do not fit.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks import PGD
        >>> attack = PGD(epsilon=0.25, steps=10, norm="l2")
        >>> x_adv = attack(lambda x: x, np.array([[0.5, 0.5]], "float32"), [0])
        >>> PGD.from_config(attack.get_config()) == attack
        True
    """

    epsilon: float
    norm: str = "linf"
    input_range: tuple[float, float] = (0.0, 1.0)
    loss: LossName = "cross_entropy"
    targeted: bool = False
    batch_size: int = 128
    seed: int = 0
    verbose: Literal["auto", 0, 1] = "auto"
    access: ClassVar[Access] = "white box"
    # Whether the method knows a search without limit (minimum-norm attacks).
    unlimited: ClassVar[bool] = False

    _programs: Programs = field(
        default_factory=Programs, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Check the settings and bring them to their plain Python types."""
        if not (self.unlimited and self.epsilon == math.inf):
            self._set("epsilon", settings.number("epsilon", self.epsilon, minimum=0.0))
        self._set("input_range", settings.interval("input_range", self.input_range))
        self._set("batch_size", settings.count("batch_size", self.batch_size))
        self._set("seed", settings.count("seed", self.seed, minimum=0))
        settings.choice("norm", self.norm, BALLS)
        settings.choice("loss", self.loss, get_args(LossName))
        settings.choice("targeted", self.targeted, (False, True))
        settings.choice("verbose", self.verbose, ("auto", 0, 1))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """What the attack is called in reports."""
        return type(self).__name__

    @property
    def sign(self) -> float:
        """Minus one if the loss of the target is driven down, else one."""
        return -1.0 if self.targeted else 1.0

    def strength(self, logits: tf.Tensor, problem: Problem) -> tf.Tensor:
        """Return how strong points with these logits are, float32 `(B,)`."""
        return self.sign * attack_loss(logits, problem.targets, self.loss)

    @property
    def passes(self) -> int:
        """Number of gradient steps or queries per example, for the progress bar."""
        return 1

    @abstractmethod
    def search(
        self, logits_fn: LogitsFn, problem: Problem, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch, as a pure function of tensors that can be traced.

        Inside, `self.epsilon` is a scalar tensor: one program serves all radii.

        Args:
            logits_fn: Maps inputs to float32 logits `(B, C)`.
            problem: The batch.
            seed: Int32 `(2,)`.

        Returns:
            The tuple of `x_adv`, like `problem.x`, and bool `(B,)`: the gradient was
            finite.
        """

    def __call__(
        self,
        model: Any,
        x: Any,
        y: Any = None,
        *,
        epsilons: Sequence[float] | None = None,
        region: Any = None,
    ) -> Any:
        """Attack `model` at `x`; see the class for arguments and result."""
        if epsilons is None:
            return run_batches(self, self._programs, model, x, y, region=region)
        attacks = [self.at(epsilon) for epsilon in epsilons]
        return [attack(model, x, y, region=region) for attack in attacks]

    def at(self, epsilon: float) -> Self:
        """Return the same attack at another radius; compiled programs are shared.

        Args:
            epsilon: Radius in input units, >= 0.

        Returns:
            The attack.

        Example:
            >>> from keras_jsigr.attacks import PGD
            >>> PGD(epsilon=0.1).at(0.2).epsilon
            0.2
        """
        other = dataclasses.replace(self, epsilon=epsilon)
        other._set("_programs", self._programs)
        return other

    def traced_at(self, epsilon: tf.Tensor) -> Self:
        """Return the attack with a tensor for its radius, as `search` needs it.

        Args:
            epsilon: Scalar of the dtype the search computes in.

        Returns:
            A copy that only `search` may be called on.
        """
        other = copy.copy(self)
        other._set("epsilon", epsilon)
        return other

    def get_config(self) -> dict[str, Any]:
        """Return the settings as plain values that JSON can hold."""
        config = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        if config.get("epsilon") == math.inf:
            config["epsilon"] = None
        return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make an attack of the settings that `get_config` returned."""
        config = dict(config)
        if config.get("epsilon", 0.0) is None:
            config["epsilon"] = math.inf
        return cls(**config)
