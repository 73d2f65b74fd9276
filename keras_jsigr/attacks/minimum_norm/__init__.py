"""Attacks that look for the closest point beyond the boundary."""
