"""Load models that Keras 2 or tf_keras wrote, on Keras 3."""

from lcmulti_keras.legacy.loading import LoadedWeights, load_legacy_model, load_legacy_weights

__all__ = ["LoadedWeights", "load_legacy_model", "load_legacy_weights"]
