"""Models that Keras 2 and tf_keras wrote, on Keras 3."""

from lcmulti_keras.legacy.loading import load_legacy_model, load_legacy_weights

__all__ = ["load_legacy_model", "load_legacy_weights"]
