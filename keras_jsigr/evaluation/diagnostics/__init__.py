"""Signs of gradient masking: does the model resist, or only hide its gradients?"""

from keras_jsigr.evaluation.diagnostics.diagnose import diagnostics

__all__ = ["diagnostics"]
