"""Benchmarks: what the pipeline costs, as ratios to a floor measured in the same run."""
