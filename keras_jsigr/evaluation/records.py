"""The plain data that an evaluation consists of; all of it fits into JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from keras_jsigr.evaluation.rate import Rate

Access = Literal["white box", "black box", "decision", "transfer", "noise"]
Status = Literal["ok", "suspect", "skipped"]


@dataclass(frozen=True, kw_only=True)
class AttackRecord:
    """What one attack did.

    Attributes:
        name: Such as `"APGD-CE"`.
        access: What the attack sees of the model.
        config: The settings of the attack, as `get_config` returns them.
        attacked: Number of examples it was run on (those still correct before it).
        broken: Number of those it fooled the model on.
        accuracy: After this and all attacks before it, over all examples.
        seconds: Wall time.
        error: What went wrong, if it did; then `broken` counts what was done before.
    """

    name: str
    access: Access
    config: dict[str, Any]
    attacked: int
    broken: int
    accuracy: Rate
    seconds: float
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClassRecord:
    """The examples of one class.

    Attributes:
        name: The name or index of the class.
        clean: Of them rightly classified without attack.
        robust: Of them rightly classified under every attack of the suite.
    """

    name: str
    clean: Rate
    robust: Rate


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Accuracy at one radius, in input units."""

    epsilon: float
    accuracy: Rate


@dataclass(frozen=True, kw_only=True)
class TransferRecord:
    """Accuracy of `target` on examples made against `source`.

    Attributes:
        source: Name of the surrogate, or of an ensemble; equal to `target` on the
            diagonal, which is the same attack with white-box access.
        target: Name of the attacked model.
        attack: Name of the attack; of several of one name the later ones are numbered,
            such as `"PGD (2)"`.
        epsilon: Radius in input units.
        accuracy: Over all examples.
        union: Whether this is the per-example worst of all sources: as many attacks as
            there are sources, so no match for a single one.
        fingerprint: Of the source's model: two sources of one name need not be the
            same. Empty in reports of earlier versions.
    """

    source: str
    target: str
    attack: str
    epsilon: float
    accuracy: Rate
    union: bool = False
    fingerprint: str = ""


@dataclass(frozen=True, kw_only=True)
class LinearizedRecord:
    """Distribution over the examples of the linearized robustness, in input units.

    Attributes:
        norm: Of the perturbation: the gradients are measured in its dual norm.
        quantiles: `(share, value)` for shares such as 0.1, 0.5, 0.9, over the rightly
            classified examples with a finite gradient.
        margin: Median difference of the largest and the second logit.
        gradient: Median dual norm of the gradient of the closest difference.
    """

    norm: str
    quantiles: list[tuple[float, float]]
    margin: float
    gradient: float


CRASHED = "The rule crashed: "  # how a finding starts whose rule did


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one rule of the diagnostics found.

    Attributes:
        rule: Identifier, such as `"zero_gradients"`.
        title: The rule in a few words, such as `"Gradients vanish"`.
        status: Whether the figures are what an honest model shows.
        says: The result in one or two sentences.
        figures: The figures it rests on, by name.
        advice: What to do about it; empty if `ok`.
    """

    rule: str
    title: str
    status: Status
    says: str
    figures: dict[str, float]
    advice: str = ""

    @property
    def crashed(self) -> bool:
        """Whether the rule was skipped because it failed."""
        return self.status == "skipped" and self.says.startswith(CRASHED)


@dataclass(frozen=True, kw_only=True)
class ExampleRecord:
    """One example that was fooled, for the eye.

    Attributes:
        index: Its place in the evaluated data.
        label: Name of the true class.
        predicted: Name of the class predicted without attack.
        adversarial: Name of the class predicted under attack; "none" where the outputs
            are no numbers.
        attack: Name of the attack that fooled the model.
        distance: Length of the perturbation in the norm of the threat model.
        pictures: PNG files in base64 by title, in the order to show: "image",
            "perturbation", "attacked image", "gradient map", "gradient map, attacked".
            Empty if the inputs are no images.
    """

    index: int
    label: str
    predicted: str
    adversarial: str
    attack: str
    distance: float
    pictures: dict[str, str] = field(default_factory=dict)
