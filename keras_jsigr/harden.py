"""One call that makes a Keras classifier train robustly, and one that undoes it."""

from __future__ import annotations

from typing import Any

import keras

from keras_jsigr.activations import has_relu
from keras_jsigr.core.arguments import BaselineName, ChangeName
from keras_jsigr.core.inputs import probe_batch, probe_size
from keras_jsigr.core.keras_compat import leaf_layers
from keras_jsigr.core.scores import ScoreName
from keras_jsigr.model import JSIGRModel
from keras_jsigr.penalties.jacobian import NormName
from keras_jsigr.penalties.selective import SelectionName
from keras_jsigr.penalties.settings import (
    REVERSE_MODE,
    EstimatorName,
    FormName,
    PenaltySettings,
    WeightsName,
)
from keras_jsigr.saliency.cache import MapTable, PerturbationCache
from keras_jsigr.training.double_backprop_check import (
    check_forward_mode,
    check_second_order,
)
from keras_jsigr.training.introspection import check_connected
from keras_jsigr.training.validation import check_channels, warn_of_own_steps


def harden(
    model: keras.Model,
    *,
    jacobian_weight: float = 0.005,
    selective_weight: float = 0.015,
    align_weight: float = 0.0,
    penalty_weights: WeightsName = "fixed",
    accuracy_drop: float = 0.02,
    reference_accuracy: float | keras.Model | None = None,
    form: FormName = "fused",
    spread: float = 0.2,
    norm: NormName = "l1",
    estimator: EstimatorName = "vjp",
    projections: int = 1,
    score: ScoreName = "log_prob",
    selection: SelectionName = "soft",
    quantile: float = 0.5,
    threshold: float | None = None,
    maps: PerturbationCache | None = None,
    masks_per_step: int | None = 1,
    grid: int = 5,
    baseline: BaselineName = "blur",
    saliency_score: ChangeName = "squared_logits",
    delay_steps: int = 0,
    ramp_steps: int = 200,
    input_range: tuple[float, float] = (0.0, 1.0),
    noise: float = 0.0,
    noise_patches: tuple[int, ...] = (1,),
    inputs: str | list[str] | None = None,
    adversary: Any = None,
    seed: int = 0,
    probe: bool = True,
    verbose: int = 1,
) -> JSIGRModel:
    """Wrap a Keras classifier so that `fit` trains it with J-SIGR.

    The objective is `task loss + lambda_J R_J + lambda_S R_S + lambda_A R_A`, with
    the Jacobian `J = dz/dx` of the logits and a perturbation saliency map `S`:

    - `form="fused"`, `norm="l1"`: `R_J = sum_i ||J_:i||_2` and
      `R_S = sum_i M_i ||J_:i||_2`, both from one random projection;
    - `form="fused"`, `norm="squared"`: `R_J = 1/2 ||J||_F^2` and
      `R_S = 1/2 sum_i M_i ||J_:i||^2`;
    - `form="guided"`, `norm="l1"`: `R_J = sum_i |g_i|` and `R_S = sum_i M_i |g_i|`,
      `norm="squared"`: half the squares, of one projection near the score's direction,
      `g = (ds/dz + spread xi)^T J` with normal `xi`;
    - `form="separate"`: `R_J = 1/2 ||J||_F^2`, and `R_S = sum_i M_i |ds/dx_i|` or
      `1/2 sum_i M_i (ds/dx_i)^2` with the score `s` of the true class;
    - `R_A = 1 - cos(|ds/dx|, S)`.

    All are means over examples of per-example values, and gradients are taken per
    unit of `input_range`: a weight means the same at any batch size, replica count,
    number of projections and input scale. The model's weights are shared, not copied;
    a softmax or sigmoid head is seen behind, not changed. The step is that of J-SIGR: a
    `train_step`, `compute_loss` or `compute_metrics` of the model's own class is not
    called. Layers are channels last.

    Args:
        model: A built Functional, Sequential or subclassed classifier with one output
            `(B, C)`, logits or probabilities.
        jacobian_weight: `lambda_J >= 0`; 0 switches the term off.
        selective_weight: `lambda_S >= 0`; 0 switches the term off.
        align_weight: `lambda_A >= 0`; 0 switches the term off.
        penalty_weights: `"fixed"`, or `"auto"`: `fit` adapts a common factor of the
            weights so that they are as large as the validation accuracy allows, at
            least `reference - accuracy_drop`. The weights above are where it starts.
        accuracy_drop: Clean accuracy that may be given up for `"auto"`, 0..1.
        reference_accuracy: What it is given up from: a number in 0..1; a plain model,
            measured on the validation data; `None` measures `model` itself as it is
            when `fit` starts, so it has to be trained.
        form: `"fused"` or `"guided"` (2x the cost of a plain step), `"separate"` (3x).
        spread: Standard deviation of the noise of the guided form, in logits, >= 0.
        norm: `"l1"`, the dual norm of an Linf adversary, or `"squared"`.
        estimator: `"vjp"`; `"exact"` (C products; few classes);
            `"finite_difference"`, for layers without second derivatives; or `"jvp"`,
            forward mode. The last two need `norm="squared"`, no guided form and no
            alignment.
        projections: Random projections per step, >= 1.
        score: For the separate and guided form and for the alignment. `"log_prob"`;
            `"margin"`, the log odds, for training sets so small that the network
            learns them by heart (there the gradient of `"log_prob"` vanishes) and for
            tasks so hard that it stays unsure (there it is at its largest); or
            `"logit"`.
        selection: `M` from `S`: `"soft"` (`1 - S`), `"hard"` (the least salient
            `quantile`), `"threshold"`; controls `"random"`, `"inverted"`, `"all"`,
            `"none"`. `"hard"`, `"threshold"`, `"inverted"` and the alignment need a
            whole map: `maps`, or `masks_per_step=None`.
        quantile: Share of the inputs for the hard selections, 0..1.
        threshold: Level of `S` for `selection="threshold"`, 0..1; `None` means each
            map's mean plus one standard deviation.
        maps: A `PerturbationCache` with maps of a frozen teacher, found by the
            content of each sample; `None` means live maps of the model itself.
        masks_per_step: Random occlusions per image and step for live maps (each
            costs a seventh to a half of a plain step); `None` means the whole grid.
        grid: Cells per side of the live maps.
        baseline: What occlusion shows in live and refreshed maps: `"blur"`, `"mean"` or
            `"zero"`. Those of `maps` were made with their own.
        saliency_score: Of these maps: `"squared_logits"`, `"probability_drop"` or
            `"sarfa"`.
        delay_steps: Optimizer steps before the penalties start.
        ramp_steps: Optimizer steps over which they grow in.
        input_range: Range of the inputs that `fit` receives.
        noise: Radius, in input units, >= 0, of the maximum-norm ball around each
            example from which every step draws the point where it takes loss and
            penalties, clipped to `input_range`; 0 means the example itself. The epsilon
            of the attacks to withstand is a good choice.
        noise_patches: Sides, in pixels or steps, >= 1, of the patches that share one
            number of the noise; patterns of several sides are added and clipped to the
            ball. `(1,)`: every entry is drawn for itself.
        inputs: Names of the inputs to regularize, or one name; `None` means every float
            input that the logits have a gradient for: not the tokens of an `Embedding`.
        adversary: An attack such as `keras_jsigr.attacks.FGSM(epsilon=0.1,
            random_start=True)`, untargeted, of one input: loss and penalties are taken
            at its points. Its `input_range` must be the one given here, and `noise` 0.
        seed: Seed of the random projections and masks.
        probe: Whether to verify the derivatives that the estimator needs now (a few
            eager passes).
        verbose: 0 for silence; 1 for one line on each thing worth knowing.

    Returns:
        A `JSIGRModel`: compile and fit it as usual. `unwrap` returns the base.

    Raises:
        TypeError: If `model` is not a Keras model or a setting has the wrong type.
        ValueError: If the model is not built or not a classifier, a setting is out of
            range, or TensorFlow cannot differentiate the model twice.

    Reference:
        arXiv 2207.13036 (abstract); 1908.02729 (random projections); 1711.09404
        (input gradient regularization); 1711.00138 (perturbation saliency).

    Example:
        >>> import keras
        >>> import keras_jsigr as kj
        >>> model = keras.Sequential(
        ...     [
        ...         keras.Input((8, 8, 1)),
        ...         keras.layers.Conv2D(4, 3, activation="silu"),
        ...         keras.layers.Flatten(),
        ...         keras.layers.Dense(3),
        ...     ]
        ... )
        >>> robust = kj.harden(model)
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> robust.compile("adam", loss, metrics=["accuracy"])
    """
    _check_model(model)
    if reference_accuracy is not None and penalty_weights == "fixed":
        raise ValueError(
            "reference_accuracy is what penalty_weights='auto' holds on to: got "
            "penalty_weights='fixed'. Pass both, or neither."
        )
    if maps is not None and not isinstance(maps, PerturbationCache):
        raise TypeError(
            f"Got {type(maps).__name__} as maps, expected a PerturbationCache. Make it "
            "by `PerturbationCache.build(model, x, y)`, or `.load(path)` a saved one."
        )
    if isinstance(inputs, str):
        inputs = [inputs]
    if inputs is not None and not isinstance(inputs, (list, tuple)):
        raise TypeError(
            f"Got {type(inputs).__name__} as inputs, expected a name or a list of "
            "names, as in `model.input_names`."
        )
    if inputs is not None and len(set(inputs)) < len(inputs):
        raise ValueError(
            f"An input counts once: got inputs={list(inputs)}, expected different "
            "names. Leave the repetition out."
        )
    twin = None
    if isinstance(reference_accuracy, keras.Model):
        twin, reference_accuracy = reference_accuracy, None
    settings = PenaltySettings(
        jacobian_weight=jacobian_weight,
        selective_weight=selective_weight,
        align_weight=align_weight,
        penalty_weights=penalty_weights,
        accuracy_drop=accuracy_drop,
        reference_accuracy=reference_accuracy,
        form=form,
        spread=spread,
        norm=norm,
        estimator=estimator,
        projections=projections,
        score=score,
        selection=selection,
        quantile=quantile,
        threshold=threshold,
        masks_per_step=masks_per_step,
        grid=grid,
        baseline=baseline,
        saliency_score=saliency_score,
        delay_steps=delay_steps,
        ramp_steps=ramp_steps,
        input_range=input_range,
        noise=noise,
        noise_patches=noise_patches,
        inputs=None if inputs is None else tuple(inputs),
        seed=seed,
    )
    check_channels(model, settings)
    table = None if maps is None else MapTable.from_cache(maps)
    robust = JSIGRModel(
        model, settings, adversary=adversary, map_table=table, reference=twin
    )
    # Differences find a slope where TensorFlow has none, if the user names the input.
    if inputs is None or estimator in REVERSE_MODE:
        check_connected(robust.input_specs, robust.regularized, robust.connected)

    def batch(size: int) -> Any:
        size = probe_size(model, size)
        return probe_batch(robust.input_specs, settings.input_range, size)

    for index in robust.regularized if probe else ():
        if estimator in REVERSE_MODE:
            check_second_order(model, robust.logits, batch, index)
        elif estimator == "jvp":
            check_forward_mode(model, robust.logits, batch(1), index)
    warn_of_own_steps(model)
    if verbose:
        _say_what_matters(robust)
    return robust


def unwrap(model: JSIGRModel) -> keras.Model:
    """Return the model that was hardened, the very same object, as trained.

    Args:
        model: A hardened model.

    Returns:
        Its base.

    Raises:
        TypeError: If `model` is not a hardened one.

    Example:
        >>> import keras
        >>> import keras_jsigr as kj
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> kj.unwrap(kj.harden(net)) is net
        True
    """
    if not isinstance(model, JSIGRModel):
        raise TypeError(
            f"Got {type(model).__name__}, expected the model that `harden` returned."
        )
    return model.base


def _check_model(model: Any) -> None:
    if isinstance(model, JSIGRModel):
        raise ValueError(
            f"`{model.name}` is hardened already. Harden `unwrap(model)` to change "
            "its settings."
        )
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Got {type(model).__name__}, expected a Keras 3 model. Load saved models "
            "with `keras.models.load_model` first."
        )
    if not model.built:
        raise ValueError(
            f"`{model.name}` is not built: got a model without weights. Call it once "
            "on a batch, or start it with `keras.Input(shape)`."
        )


def _say_what_matters(robust: JSIGRModel) -> None:
    head = robust.head
    if head.layer is not None:
        print(
            f"keras_jsigr: `{head.layer.name}` ends in a {head.kind}; the penalties "
            "use the logits before it."
        )
    relu = [layer for layer in leaf_layers(robust.base) if has_relu(layer)]
    if relu:
        print(
            f"keras_jsigr: {len(relu)} ReLU layers. Smooth ones train better here: "
            "SiLU took clean / PGD-20 accuracy from 79.2 / 52.6 to 81.9 / 56.2 % on "
            "Fashion-MNIST (benchmarks/settings.py). See with_smooth_activations."
        )
