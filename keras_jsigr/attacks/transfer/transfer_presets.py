"""The transfer attacks by the names they are known under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import keras

from keras_jsigr.attacks.transfer.transfer_attack import TransferAttack


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class NIFGSM(TransferAttack):
    """Look ahead: take the gradient where the momentum leads (Nesterov).

    Args: those of `TransferAttack`, with `nesterov=True`.

    Reference:
        arXiv 1908.06281.

    Example:
        >>> from keras_jsigr.attacks.transfer.transfer_presets import NIFGSM
        >>> NIFGSM(epsilon=0.1).name, NIFGSM(epsilon=0.1, scales=5).name
        ('NI-FGSM', 'SI-NI-FGSM')
    """

    nesterov: bool = True


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class DIFGSM(TransferAttack):
    """Show the model randomly shrunk and shifted images: the one to beat in transfer.

    Args: those of `TransferAttack`, with `diversity=0.5`.

    Reference:
        arXiv 1803.06978 (with momentum, M-DI2-FGSM).

    Example:
        >>> from keras_jsigr.attacks.transfer.transfer_presets import DIFGSM
        >>> DIFGSM(epsilon=0.1).name
        'MI-DI-FGSM'
    """

    diversity: float = 0.5


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class TIFGSM(TransferAttack):
    """Smooth the gradient: translation invariance, against adversarially trained nets.

    Args: those of `TransferAttack`, with `kernel_size="auto"`.

    Reference:
        arXiv 1904.02884.

    Example:
        >>> from keras_jsigr.attacks.transfer.transfer_presets import TIFGSM
        >>> TIFGSM(epsilon=0.1).name
        'MI-TI-FGSM'
    """

    kernel_size: int | Literal["auto"] = "auto"


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class SIFGSM(TransferAttack):
    """Follow the mean gradient over copies of halved brightness: scale invariance.

    Args: those of `TransferAttack`, with `scales=5`.

    Reference:
        arXiv 1908.06281.

    Example:
        >>> from keras_jsigr.attacks.transfer.transfer_presets import SIFGSM
        >>> SIFGSM(epsilon=0.1).name
        'SI-MI-FGSM'
    """

    scales: int = 5


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class VMIFGSM(TransferAttack):
    """Tune the gradient by its variance around the last point.

    Args: those of `TransferAttack`, with `variance_samples=5`; the paper takes 20.

    Reference:
        arXiv 2103.15571.

    Example:
        >>> from keras_jsigr.attacks.transfer.transfer_presets import VMIFGSM
        >>> VMIFGSM(epsilon=0.1).name
        'VMI-FGSM'
    """

    variance_samples: int = 5
