"""Signs of gradient masking: does the model resist, or only hide its gradients?"""

from keras_jsigr.evaluation.masking.diagnose import diagnostics

__all__ = ["diagnostics"]
