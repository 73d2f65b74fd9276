"""Saliency methods, one per file, each a frozen object with settings."""
