"""Attacks without gradients: from outputs, from decisions, from noise."""
