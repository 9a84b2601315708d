"""The algorithms that backends share, and the reference that defines what is correct."""
