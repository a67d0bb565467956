"""Evaluation of recommendation by LLM surrogate users with attribute-oriented tools, distributed on Ray.

The names below are the public API. Each is loaded when it is first used: `import toolrec` itself loads neither torch nor
ray, openai or pandas.
"""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from toolrec.api import evaluate, prepare
    from toolrec.config import RunConfig
    from toolrec.data.dataset import Dataset, load_dataset
    from toolrec.errors import ConfigError, ToolRecError
    from toolrec.llm.base import LLM
    from toolrec.recommenders.base import Recommender
    from toolrec.recommenders.train import TrainConfig, train
    from toolrec.records import Completion, Observation, RankedItem, Round, ToolCall, Trace, UserTask
    from toolrec.runs.run import Run, load_run
    from toolrec.surrogate.base import Strategy
    from toolrec.tools.base import Tool

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "Completion",
    "ConfigError",
    "Dataset",
    "Observation",
    "RankedItem",
    "Recommender",
    "Round",
    "Run",
    "RunConfig",
    "Strategy",
    "Tool",
    "ToolCall",
    "ToolRecError",
    "Trace",
    "TrainConfig",
    "UserTask",
    "__version__",
    "evaluate",
    "load_dataset",
    "load_run",
    "prepare",
    "train",
]

_HOMES = {
    "LLM": "llm.base",
    "Completion": "records",
    "ConfigError": "errors",
    "Dataset": "data.dataset",
    "Observation": "records",
    "RankedItem": "records",
    "Recommender": "recommenders.base",
    "Round": "records",
    "Run": "runs.run",
    "RunConfig": "config",
    "Strategy": "surrogate.base",
    "Tool": "tools.base",
    "ToolCall": "records",
    "ToolRecError": "errors",
    "Trace": "records",
    "TrainConfig": "recommenders.train",
    "UserTask": "records",
    "evaluate": "api",
    "load_dataset": "data.dataset",
    "load_run": "runs.run",
    "prepare": "api",
    "train": "recommenders.train",
}


def __getattr__(name: str) -> _typing.Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_importlib.import_module(f"toolrec.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
