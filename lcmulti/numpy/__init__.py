"""NumPy, a backend like the others."""
