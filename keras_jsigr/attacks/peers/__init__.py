"""Attacks of other libraries under the same contract."""
