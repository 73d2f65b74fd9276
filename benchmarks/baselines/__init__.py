"""The training methods that the study compares, one file of settings each."""
