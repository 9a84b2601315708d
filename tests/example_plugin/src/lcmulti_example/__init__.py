"""A backend and an implementation for lcmulti, written outside of it."""
