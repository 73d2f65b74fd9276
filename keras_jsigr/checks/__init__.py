"""Checks that speak before any training: compile settings, data, derivatives."""
