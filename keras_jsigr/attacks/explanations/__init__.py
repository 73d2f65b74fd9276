"""Attacks on the saliency map instead of the decision."""
