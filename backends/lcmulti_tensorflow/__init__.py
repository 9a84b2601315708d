"""TensorFlow backend of lcmulti."""
