"""Transfer of adversarial examples: made against one model, tried on others."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_jsigr.attacks.base import check_inputs
from keras_jsigr.attacks.ensemble import LogitsEnsemble
from keras_jsigr.attacks.norms import is_feasible
from keras_jsigr.attacks.suite import attacked, attacks_of, by_name, free_name
from keras_jsigr.core import arguments
from keras_jsigr.core.batching import PROGRAMS, classified_rightly, predict_logits
from keras_jsigr.core.logits import innermost_line
from keras_jsigr.core.variables import unchanged
from keras_jsigr.evaluation import validation
from keras_jsigr.evaluation.records import AttackRecord, Rate, TransferRecord
from keras_jsigr.evaluation.resume import (
    CachedResult,
    ResultCache,
    data_identity,
    model_identity,
    short_hash,
)
from keras_jsigr.evaluation.robustness import SuiteResult, describe
from keras_jsigr.evaluation.run import AttackFailedError, Task, in_words, versions

Labels = Literal["true", "own"]


class Cell(NamedTuple):
    """Examples made against one source by one attack at one radius, on all targets."""

    source: str
    attack: str
    epsilon: float
    right: dict[str, npt.NDArray[np.bool_]]
    seconds: float
    error: str | None = None
    fingerprint: str = ""

    def records(self, counted: Any = slice(None), union: bool = False) -> list[TransferRecord]:
        """Count the examples that are right, by target."""
        about: dict[str, Any] = {"source": self.source, "attack": self.attack}
        about |= {"epsilon": self.epsilon, "fingerprint": self.fingerprint}
        records = []
        for target, right in self.right.items():
            rate = Rate(int(right[counted].sum()), len(right[counted]))
            records.append(TransferRecord(target=target, accuracy=rate, union=union, **about))
        return records


@dataclass(frozen=True)
class TransferBench:
    """Make and judge transferred examples of a fixed set of models and data."""

    models: Mapping[str, Any]
    x: npt.NDArray[Any]
    y: npt.NDArray[np.int64]
    labels: Labels
    batch_size: int
    cache: ResultCache

    @cached_property
    def _identities(self) -> dict[str, str]:
        return {name: model_identity(m, self.x) for name, m in self.models.items()}

    @cached_property
    def _data(self) -> str:
        return data_identity(self.x, self.y)

    def _logits(self, name: str, points: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return predict_logits(self.models[name], points, self.batch_size)

    def cell(self, source: str, attack: Any, targets: Sequence[str]) -> Cell:
        """Make examples against one model and try them on others."""

        def compute() -> CachedResult:
            x, logits_of = self.x, partial(self._logits, source)
            y = logits_of(x).argmax(-1) if self.labels == "own" else self.y
            rows = np.arange(len(x))
            done = attacked(attack, self.models[source], logits_of, x, y, rows)
            if done.crashed:
                raise AttackFailedError(done.error)
            x_adv = done.x_adv.astype(x.dtype)
            if done.error is not None:
                ends: Any = (attack.norm, attack.input_range)
                valid = is_feasible(x_adv, x, attack.epsilon, *ends)
                x_adv[~valid] = x[~valid]
            # By number: a name may hold what no archive can.
            arrays = {
                f"right_{number}": classified_rightly(self._logits(name, x_adv), self.y)
                for number, name in enumerate(targets)
            }
            info = {"seconds": done.seconds, "error": innermost_line(done.error)}
            return CachedResult(arrays, info)

        wanted = {
            "attack": describe(attack),
            "labels": self.labels,
            "data": self._data,
            "source": self._identities[source],
            "targets": [self._identities[name] for name in targets],
        }
        found = self.cache.get_or_compute("transfer", wanted, compute)
        right = {name: found.arrays[f"right_{i}"] for i, name in enumerate(targets)}
        about = {**found.info, "fingerprint": self._identities[source][:16]}
        return Cell(source, attack.name, attack.epsilon, right, **about)


@dataclass
class TransferResult:
    """What transferred examples did to the model."""

    records: list[TransferRecord] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    attacks: dict[str, dict[str, Any]] = field(default_factory=dict)


def run_transfer(
    task: Task,
    name: str,
    surrogates: Mapping[str, Any],
    attacks: Sequence[Any],
    radii: Sequence[float],
    result: TransferResult,
) -> None:
    """Attack every surrogate and their ensemble, and the model itself to compare."""
    name = _free(name, surrogates, f"{name} (evaluated)")
    sources = {name: task.model, **surrogates}
    if len(surrogates) > 1:
        label = _free("ensemble", sources, "ensemble of all")
        sources[label] = LogitsEnsemble(list(surrogates.values()))
    bench = TransferBench(sources, task.x, task.y, "true", task.batch_size, task.cache)
    named = by_name(attacks)
    result.attacks = {label: describe(each)["config"] for label, each in named.items()}
    for source in sources:
        if source == name and task.no_gradient:
            continue
        for label, attack in named.items():
            try:
                for radius in radii:
                    if not task.can_ask(len(task.x) + 64):
                        task.log.fail("transfer", "`max_queries` is used up")
                        return
                    cell = bench.cell(source, attack.at(radius), [name])
                    cell = cell._replace(attack=label)
                    result.records += cell.records()
                    result.cells += [cell] if source != name else []
                    about = f"{label} on {source} at {radius:g}"
                    if cell.error:
                        task.log.fail(f"transfer, {about}", cell.error)
                    left = result.records[-1].accuracy.accuracy
                    task.log.say(f"  {about}: {left:.1%} left")
            except Exception as error:
                task.log.fail(f"transfer, {label} on {source}", in_words(error))
    if len(surrogates) > 1:
        result.records += _worst(result.cells, name, sources)


def transfer_record(task: Task, result: TransferResult, suite: SuiteResult) -> AttackRecord | None:
    """Count transferred examples among the attacks: whatever fools the model counts."""
    cells = [cell for cell in result.cells if cell.epsilon <= task.epsilon]
    if not cells:
        return None
    errors = list(dict.fromkeys(cell.error for cell in cells if cell.error))
    left = int(suite.robust.sum())
    for cell in cells:
        suite.robust &= next(iter(cell.right.values()))
    accuracy = Rate(int(suite.robust.sum()), len(task.x))
    return AttackRecord(
        name="Transfer",
        access="transfer",
        config={
            "sources": list(dict.fromkeys(cell.source for cell in cells)),
            "attacks": list(dict.fromkeys(cell.attack for cell in cells)),
            "settings": result.attacks,
        },
        attacked=left,
        broken=left - accuracy.correct,
        accuracy=accuracy,
        seconds=sum(cell.seconds for cell in cells),
        error="; ".join(errors) or None,
    )


def _worst(cells: Sequence[Cell], name: str, taken: Mapping[str, Any]) -> list[TransferRecord]:
    """Return what the worst of all sources per example leaves, by attack and radius."""
    label = _free("any surrogate", taken, "any of the surrogates")
    groups: dict[tuple[str, float], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.attack, cell.epsilon), []).append(cell)
    records = []
    for group in groups.values():
        right = np.all([cell.right[name] for cell in group], axis=0)
        prints = short_hash(" ".join(sorted(c.fingerprint for c in group)))
        worst = group[0]._replace(source=label, right={name: right}, fingerprint=prints)
        records += worst.records(union=True)
    return records


def _free(name: str, taken: Mapping[str, Any], otherwise: str) -> str:
    return name if name not in taken else free_name(otherwise, taken)


def transfer_matrix(  # noqa: D417
    models: Mapping[str, Any],
    x: Any,
    y: Any,
    *,
    epsilons: Sequence[float] | None = None,
    attacks: Sequence[Any] = ("mi-fgsm",),
    targets: Sequence[str] | None = None,
    norm: str = "linf",
    input_range: tuple[float, float] | None = None,
    labels: Labels = "true",
    only_correct: bool = False,
    batch_size: int = 128,
    seed: int = 0,
    resume: str | os.PathLike[str] | None = None,
) -> list[TransferRecord]:
    """Measure the accuracy of every model on examples made against every model.

    Examples are made once per source, attack and radius and tried on all targets. The diagonal,
    source equal to target, is the same attack with white-box access: read the rest beside it.

    Args:
        models: Models by name: the sources.
        x, y, norm, input_range, batch_size, seed, resume: See `evaluate_robustness`.
        epsilons: Radii in input units; `None`: that of the hardened model.
        attacks: Attacks, or their names; each is run at all radii.
        targets: Names of the models to try the examples on; `None`: all.
        labels: Whether the examples shall leave the `"true"` class or the source's
            `"own"` decision, as an attacker without labels has to do.
        only_correct: Whether to count only the examples that all targets classify
            rightly without attack; their number is the `total` of the rates.

    Returns:
        One record per source, attack, radius and target, in this order.

    Raises:
        TypeError, ValueError: As `evaluate_robustness`, or if no example is classified
            rightly by all targets.

    Reference:
        arXiv 1611.02770 (transfer between models), arXiv 1710.06081 (momentum).

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks import FGSM
        >>> from keras_jsigr.evaluation import transfer_matrix
        >>> models = {"a": lambda x: x, "b": lambda x: x[:, ::-1]}
        >>> x, y = np.array([[0.6, 0.4]], "float32"), [0]
        >>> records = transfer_matrix(models, x, y, attacks=[FGSM(epsilon=0.2)], epsilons=[0.2])
        >>> [(r.source, r.target, r.accuracy.correct) for r in records]
        [('a', 'a', 0), ('a', 'b', 1), ('b', 'a', 1), ('b', 'b', 0)]
    """
    batch_size = arguments.count("batch_size", batch_size)
    arguments.choice("labels", labels, ("true", "own"))
    arguments.choice("only_correct", only_correct, (False, True))
    validation.check_models(models)
    input_range = validation.known_range(input_range, *models.values())
    targets = list(models) if targets is None else list(targets)
    for name in targets:
        arguments.choice("targets", name, tuple(models))
    x = check_inputs(x, input_range)
    PROGRAMS.forget(*models.values())
    classes = None
    for name, model in models.items():
        classes = validation.class_count(f"model '{name}'", model, x, classes)
    x, rows = validation.check_data(x, y, input_range, classes or 0)
    if epsilons is None:
        known = (None, norm, input_range, *models.values())
        epsilons = [validation.check_threat_model(x, *known)[1]["epsilon"]]
    radii = validation.check_radii("epsilons", epsilons)
    threat: dict[str, Any] = {"epsilon": radii[0], "norm": arguments.norm(norm)}
    threat |= {"input_range": input_range, "batch_size": batch_size, "seed": seed}
    made = attacks_of(attacks, transfer=True, **threat)
    counted = np.ones(len(x), bool)
    if only_correct:
        for name in targets:
            logits = predict_logits(models[name], x, batch_size)
            counted &= classified_rightly(logits, rows)
        if not counted.any():
            raise ValueError(
                f"No example is classified rightly by all of {targets}: expected at "
                "least one. Pass only_correct=False, or check the labels."
            )
    cache = ResultCache(resume, {"versions": versions()})
    bench = TransferBench(models, x, rows, labels, batch_size, cache)
    records = []
    for source in models:
        for label, attack in by_name(made).items():
            for radius in radii:
                with unchanged(models):
                    cell = bench.cell(source, attack.at(radius), targets)
                if cell.error:
                    what = f"{label} on {source} at {radius:g}: {cell.error}."
                    warnings.warn(f"{what} Repair the attack.", RuntimeWarning, stacklevel=2)
                records += cell._replace(attack=label).records(counted)
    return records
