"""The loops that attacks search in, and what they carry from step to step."""
