"""Evaluation of recommendation by LLM surrogate users with attribute-oriented tools, distributed on Ray."""

__version__ = "0.1.0"

__all__ = ["__version__"]
