"""Compile a loaded model like the old one, as far as it uses Keras' own names."""

from __future__ import annotations

from typing import Any

import keras

from lcmulti.errors import FileError
from lcmulti_keras.legacy.allowed import OPTIMIZERS
from lcmulti_keras.legacy.contract import Builds, Config

__all__ = ["compile_as"]

SHORT = {
    "mse": "MeanSquaredError", "mae": "MeanAbsoluteError", "mape": "MeanAbsolutePercentageError",
    "msle": "MeanSquaredLogarithmicError", "kld": "KLDivergence", "acc": "accuracy",
    "kl_divergence": "KLDivergence", "kullback_leibler_divergence": "KLDivergence",
    "logcosh": "LogCosh", "log_cosh": "LogCosh", "cosine_proximity": "CosineSimilarity",
}  # fmt: skip
METRICS = dict.fromkeys(("logcosh", "log_cosh", "LogCosh"), "LogCoshError")
STRATEGIES = ("accuracy", "acc", "crossentropy", "ce")
GONE = ("auto",)


def compile_as(builder: Builds, model: Any, config: Config) -> list[str]:
    """Compile *model*, and return what could not be converted.

    Parameters
    ----------
    builder : Builder
    model : keras.Model
    config : dict
        ``training_config`` of a ``.h5`` file, ``compile_config`` of a ``.keras`` one.
    """
    lost = []
    outputs = getattr(model, "output_names", ())
    # With several outputs, Keras 2 wrote the name of the output before that of each metric.
    several = outputs if len(outputs) > 1 else ()
    prefixes = [f"{old}_" for old, new in builder.names.items() if new in several]

    def attempt(what: str, make: Any, value: Any) -> Any:
        try:
            return _mapped(make, value)
        except (FileError, TypeError, ValueError):
            lost.append(f"its {what}")
            return None

    def by_output(name: str) -> Any:
        value = config.get(name)
        if isinstance(value, dict) and "class_name" not in value:
            return {builder.names.get(key, key): each for key, each in value.items()}
        return value

    def metrics_of(name: str) -> Any:
        value = _present(by_output(name))
        one_list = isinstance(value, list) and not any(isinstance(each, list) for each in value)
        if one_list and several:
            value = [value] * len(outputs)  # as in Keras 2
        return attempt(name.replace("_", " "), lambda each: _metric(builder, each, prefixes), value)

    optimizer = config.get("optimizer", config.get("optimizer_config"))
    loss = by_output("loss")
    if isinstance(loss, dict) and "class_name" not in loss and outputs:
        loss = dict.fromkeys(outputs) | loss  # Keras 3 needs an entry for each
    loss = attempt("custom loss", lambda each: _loss(builder, each), loss)
    metrics, weighted = map(metrics_of, ("metrics", "weighted_metrics"))
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
            loss_weights=builder.plain(by_output("loss_weights")),
        )
    except (TypeError, ValueError):
        lost.append("how it was compiled")
    return lost


def _present(value: Any) -> Any:
    """Metrics without None, which Keras 2 wrote for an output without metrics."""
    if isinstance(value, dict) and "class_name" not in value:
        return {key: _present(each) for key, each in value.items() if each is not None}
    if not isinstance(value, list):
        return value
    if any(isinstance(each, list) for each in value):  # one for each output
        return [[] if each is None else _present(each) for each in value]
    return [each for each in value if each is not None]


def _mapped(make: Any, value: Any) -> Any:
    """Apply *make* to each leaf of lists, and of dicts that are not a configuration."""
    if value is None:
        return None
    if isinstance(value, list):
        return [_mapped(make, each) for each in value]
    if isinstance(value, dict) and "class_name" not in value:
        return {key: _mapped(make, each) for key, each in value.items()}
    return make(value)


def _named(builder: Builds, value: Any, kind: str) -> Any:
    """An object from its configuration, or from its name as Keras 2 wrote it."""
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


def _loss(builder: Builds, value: Any) -> Any:
    return _named(builder, value, "losses")


def _metric(builder: Builds, value: Any, prefixes: list[str]) -> Any:
    if isinstance(value, dict) and value.get("class_name") == "MeanMetricWrapper":
        config = value.get("config") or {}
        name = config.get("name")
        metric = _metric(builder, config.get("fn") or name, prefixes)
        if isinstance(metric, keras.metrics.Metric) and isinstance(name, str):
            metric.name = name.removeprefix(next(filter(name.startswith, prefixes), ""))
        return metric
    if isinstance(value, str) and value.lower() in STRATEGIES:
        return value
    metric = _named(builder, METRICS.get(value, value) if isinstance(value, str) else value,
                    "metrics")  # fmt: skip
    if isinstance(value, str) and isinstance(metric, keras.metrics.Metric):
        metric.name = value  # the name in the history and for callbacks
    return metric


def _optimizer(builder: Builds, value: Any) -> Any:
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
