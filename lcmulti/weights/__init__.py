"""Weights: first values, files, and the layouts of other libraries."""
