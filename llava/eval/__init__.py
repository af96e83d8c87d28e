"""Evaluation: one answer generator for all benchmarks, one scorer per benchmark, and the paper's table."""
