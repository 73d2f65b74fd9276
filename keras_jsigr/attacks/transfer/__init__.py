"""Attacks that are made against one model to fool another."""
