"""Evaluation: one answer generator for all benchmarks, a scorer each, and the table of the paper."""
