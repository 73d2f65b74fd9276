"""The parts of an evaluation: each a function of the task, each may fail alone."""
