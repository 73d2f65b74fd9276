"""Attacks on a part of the input."""
