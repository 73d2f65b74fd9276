"""Honest evaluation: worst case over a suite, transfer, diagnostics, a report."""
