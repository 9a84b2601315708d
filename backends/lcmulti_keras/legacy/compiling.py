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
ACCURACY = ("accuracy", "acc")
CROSSENTROPY = ("crossentropy", "ce")
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
        if not isinstance(value, dict) or "class_name" in value:
            return value
        if len(model.outputs) == 1:
            return next(iter(value.values()), None)
        return {builder.names.get(key, key): each for key, each in value.items()}

    def metrics_of(name: str) -> Any:
        value = _present(by_output(name))
        if len(model.outputs) == 1 and isinstance(value, list) and list(map(type, value)) == [list]:
            (value,) = value
        elif isinstance(value, str) or (isinstance(value, dict) and "class_name" in value):
            value = [value]
        one_list = isinstance(value, list) and not any(isinstance(each, list) for each in value)
        if one_list and several:
            value = [value] * len(outputs)  # as in Keras 2

        def make(each: Any) -> Any:
            return _metric(builder, _crossentropy(each, model, config.get("loss")), prefixes)

        return attempt(name.replace("_", " "), make, value)

    optimizer = config.get("optimizer", config.get("optimizer_config"))
    loss, weights = by_output("loss"), builder.plain(by_output("loss_weights"))
    if isinstance(loss, dict) and "class_name" not in loss and outputs:
        loss = dict.fromkeys(outputs) | loss  # Keras 3 needs an entry for each
    if isinstance(weights, dict) and outputs:
        weights = dict.fromkeys(outputs, 1.0) | weights
    loss = attempt("custom loss", lambda each: _loss(builder, each), loss)
    metrics, weighted = map(metrics_of, ("metrics", "weighted_metrics"))
    chosen = attempt("optimizer", lambda each: _optimizer(builder, each), optimizer)
    if isinstance(optimizer, dict) and (optimizer.get("config") or {}).get("decay"):
        lost.append("the optimizer's decay")
    if loss is None:  # Keras 3 evaluates nothing without
        return lost if "its custom loss" in lost else [*lost, "how it was compiled, without a loss"]
    try:
        model.compile(
            optimizer=chosen or "rmsprop",
            loss=loss,
            metrics=metrics,
            weighted_metrics=weighted,
            loss_weights=weights,
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


def _crossentropy(value: Any, model: Any, loss: Any) -> Any:
    """The metric for a name that Keras 2 understood by the shapes of what came."""
    if not isinstance(value, str) or value.lower() not in CROSSENTROPY:
        return value
    if len(model.outputs) > 1:
        raise ValueError("the shapes of several outputs may differ")
    sparse = any("sparse" in str(each).lower() for each in keras.tree.flatten(loss))
    kind = "Binary" if model.outputs[0].shape[-1] == 1 else "Categorical"
    kind = "SparseCategorical" if sparse else kind
    return {"class_name": f"{kind}Crossentropy", "config": {"name": value}}


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
    if isinstance(value, str):
        if value.lower() in ACCURACY:
            return value
        metric = _named(builder, METRICS.get(value, value), "metrics")
        if isinstance(metric, keras.metrics.Metric):
            metric.name = value  # the name in the history, and to a callback
        return metric
    config = value.get("config") or {}
    if value.get("class_name") == "MeanMetricWrapper":
        metric = _metric(builder, config.get("fn") or config.get("name"), prefixes)
    else:
        metric = _named(builder, value, "metrics")
    name = config.get("name") if isinstance(config, dict) else None
    if isinstance(metric, keras.metrics.Metric) and isinstance(name, str):
        metric.name = name.removeprefix(next(filter(name.startswith, prefixes), ""))
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
