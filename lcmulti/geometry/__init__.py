"""What the numbers of a layer mean: normalised arguments, shapes, padding, the spec."""
