"""Saliency methods of other libraries under the same contract."""
