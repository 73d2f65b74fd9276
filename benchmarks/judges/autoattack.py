"""AutoAttack by its authors' code (`pyautoattack`), on a copy of the network in PyTorch."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import torch
from pyautoattack import AutoAttack
from torch import nn

from judges.budget import Budget, Run

_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
_ACTIVATIONS = {"silu": nn.SiLU, "relu": nn.ReLU, "linear": nn.Identity}


class KerasFlatten(nn.Module):
    """Flatten in Keras' order, channels last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `(N, H * W * C)` of `(N, C, H, W)`."""
        return x.permute(0, 2, 3, 1).flatten(1)


def as_torch(model: keras.Sequential) -> nn.Sequential:
    """Copy a network of convolutions, activations and dense layers.

    Args:
        model: Sequential, with logits; images are channels last.

    Returns:
        A module with the same weights; images are channels first.

    Raises:
        ValueError: If there is a layer that has no counterpart here.
    """
    parts: list[nn.Module] = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Flatten):
            parts.append(KerasFlatten())
            continue
        parts += [_with_weights(layer), _ACTIVATIONS[layer.activation.__name__]()]
    return nn.Sequential(*parts).eval().requires_grad_(False)


def _with_weights(layer: Any) -> nn.Module:
    """Copy a layer with a kernel and a bias."""
    kernel, bias = (torch.from_numpy(weights.copy()) for weights in layer.get_weights())
    if isinstance(layer, keras.layers.Conv2D):
        sides, strides = layer.kernel_size, layer.strides
        # "same" pads both ends alike only where this holds for the length that comes in.
        spare = [side - stride for side, stride in zip(sides, strides, strict=True)]
        if layer.padding != "same" or any(number % 2 for number in spare):
            raise ValueError(f"Got {layer.name} of {sides}, {strides}, {layer.padding!r}.")
        padding = [number // 2 for number in spare]
        copy: Any = nn.Conv2d(*kernel.shape[2:], sides, strides, padding)
        kernel = kernel.permute(3, 2, 0, 1)
    elif isinstance(layer, keras.layers.Dense):
        copy = nn.Linear(*kernel.shape)
        kernel = kernel.T
    else:
        raise ValueError(f"Got {layer.name}, expected a convolution or a dense layer.")
    copy.weight.data, copy.bias.data = kernel.contiguous(), bias
    return copy


def logits(network: nn.Module, x: np.ndarray) -> np.ndarray:
    """Return the logits of the copy at images that are channels last."""
    with torch.no_grad():
        return network(_to_torch(x)).numpy()


def suite(model: keras.Sequential, budget: Budget) -> Run:
    """Prepare version "standard" of the authors' suite, of all four attacks."""
    return _run(model, budget, version="standard")


def square(model: keras.Sequential, budget: Budget) -> Run:
    """Prepare Square as it is in that suite, 5,000 queries, alone."""
    return _run(model, budget, version="custom", attacks=["square"])


def _run(model: keras.Sequential, budget: Budget, **settings: Any) -> Run:
    network = as_torch(model)
    norm = _NORMS[budget.norm]
    attack = AutoAttack(network, eps=budget.epsilon, norm=norm, seed=budget.seed, **settings)

    def run(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x_adv, _ = attack.run_standard_evaluation(
            _to_torch(x), torch.from_numpy(y.astype("int64")), batch_size=budget.batch_size
        )
        return x_adv.permute(0, 2, 3, 1).numpy()

    return run


def _to_torch(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x.astype("float32")).permute(0, 3, 1, 2).contiguous()
