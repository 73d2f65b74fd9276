"""Data files only; see `keras_jsigr.datasets`."""
