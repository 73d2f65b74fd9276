"""The sets that attacks may search: norm balls cut with the range of the inputs."""
