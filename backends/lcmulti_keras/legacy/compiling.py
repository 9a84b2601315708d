"""Compile a loaded model as the old one was, as far as Keras' own names go."""

from __future__ import annotations

from typing import Any

from lcmulti.errors import FileError
from lcmulti_keras.legacy.allowed import OPTIMIZERS

__all__ = ["compile_as"]

Config = dict[str, Any]
SHORT = {
    "mse": "MeanSquaredError", "mae": "MeanAbsoluteError", "mape": "MeanAbsolutePercentageError",
    "msle": "MeanSquaredLogarithmicError", "kld": "KLDivergence", "acc": "accuracy",
    "kl_divergence": "KLDivergence", "kullback_leibler_divergence": "KLDivergence",
    "logcosh": "LogCosh", "log_cosh": "LogCosh", "cosine_proximity": "CosineSimilarity",
}  # fmt: skip
STRATEGIES = ("accuracy", "acc", "crossentropy", "ce")
GONE = ("auto",)


def compile_as(builder: Any, model: Any, config: Config) -> list[str]:
    """Compile *model* and return what could not be carried over.

    Parameters
    ----------
    builder : Builder
    model : keras.Model
    config : dict
        ``training_config`` of a ``.h5`` file, ``compile_config`` of a ``.keras`` one.
    """
    lost = []

    def attempt(what: str, make: Any, value: Any) -> Any:
        try:
            return _mapped(make, value)
        except (FileError, TypeError, ValueError):
            lost.append(f"its {what}")
            return None

    optimizer = config.get("optimizer", config.get("optimizer_config"))
    loss = attempt("custom loss", lambda each: _loss(builder, each), config.get("loss"))
    metrics, weighted = (
        attempt(name.replace("_", " "), lambda each: _metric(builder, each), config.get(name))
        for name in ("metrics", "weighted_metrics")
    )
    chosen = attempt("optimizer", lambda each: _optimizer(builder, each), optimizer)
    if isinstance(optimizer, dict) and (optimizer.get("config") or {}).get("decay"):
        lost.append("the optimizer's decay")
    if loss is None:
        return lost
    try:
        model.compile(
            optimizer=chosen or "rmsprop",
            loss=loss,
            metrics=metrics,
            weighted_metrics=weighted,
            loss_weights=builder.plain(config.get("loss_weights")),
        )
    except (TypeError, ValueError):
        lost.append("how it was compiled")
    return lost


def _mapped(make: Any, value: Any) -> Any:
    """Apply *make* to each leaf of lists and of dicts that are no configuration."""
    if value is None:
        return None
    if isinstance(value, list):
        return [_mapped(make, each) for each in value]
    if isinstance(value, dict) and "class_name" not in value:
        return {key: _mapped(make, each) for key, each in value.items()}
    return make(value)


def _named(builder: Any, value: Any, kind: str) -> Any:
    """An object from its configuration, or from its name in any of Keras 2's spellings."""
    if isinstance(value, dict) and value.get("class_name") == "function":
        value = value.get("config")
    if isinstance(value, str):
        if value in builder.custom_objects:
            return builder.custom_objects[value]
        name = SHORT.get(value.lower(), value)
        value = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
        return builder.object(value, kind)
    config = {
        key: each
        for key, each in (value.get("config") or {}).items()
        if key != "fn" and each not in GONE and not (key == "dtype" and isinstance(each, dict))
    }
    return builder.object(value | {"config": config}, kind)


def _loss(builder: Any, value: Any) -> Any:
    return _named(builder, value, "losses")


def _metric(builder: Any, value: Any) -> Any:
    if isinstance(value, str) and value.lower() in STRATEGIES:
        return value
    if isinstance(value, dict) and value.get("class_name") == "MeanMetricWrapper":
        value = (value.get("config") or {}).get("fn") or (value.get("config") or {}).get("name")
        return _metric(builder, value)
    return _named(builder, value, "metrics")


def _optimizer(builder: Any, value: Any) -> Any:
    if isinstance(value, str):
        names = {each.lower(): each for each in OPTIMIZERS}
        value = {"class_name": names.get(value.lower(), value), "config": {}}
    config = {
        key: each
        for key, each in (value.get("config") or {}).items()
        if each is not None and key not in ("name", "jit_compile", "is_legacy_optimizer")
    }
    if "lr" in config:  # before TensorFlow 2.3
        config["learning_rate"] = config.pop("lr")
    return builder.object(value | {"config": config}, "optimizers")
