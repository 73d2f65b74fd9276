"""The networks of the benchmarks, how they are trained, and what on."""
