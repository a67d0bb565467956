"""Fusions of the tools' lists without an LLM: by reciprocal ranks, by scores, and a learned ranker."""
