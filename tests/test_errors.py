"""The exception tree: exit codes, messages, and the way through a pickle, as Ray sends errors between processes."""

from __future__ import annotations

import pickle
from typing import get_args

import pytest

from toolrec import errors
from toolrec.errors import FailureKind, LLMError, ReplyError, ToolRecError
from toolrec.records import ENDED_BY, FINISHED


def everything_below(kind: type[ToolRecError]) -> list[type[ToolRecError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in everything_below(child))]


TREE = [kind for kind in everything_below(ToolRecError) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", TREE)
def test_every_error_comes_through_a_pickle_whole(kind: type[ToolRecError]):
    own = {"http_status": 503} if issubclass(kind, LLMError) else {"kind": "list"} if issubclass(kind, ReplyError) else {}
    error = kind("what was wrong", value=["x"], allowed=("a", "b"), hint="do it otherwise", **own)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is kind
    assert str(again) == str(error) == "what was wrong; got: ['x']; allowed: a, b; do it otherwise"
    assert vars(again) == vars(error)


@pytest.mark.parametrize("kind", TREE)
def test_the_tree_at_the_top_of_the_module_has_every_error(kind: type[ToolRecError]):
    assert kind.__name__ in (errors.__doc__ or "")


def test_every_kind_of_failure_says_how_its_user_ended():
    assert set(ENDED_BY) == set(get_args(FailureKind))
    assert not FINISHED & set(ENDED_BY.values())
    for kind in TREE:
        if issubclass(kind, LLMError):
            assert ENDED_BY[kind.failure_kind] == "llm_failure"
