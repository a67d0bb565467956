"""Users' own parts are found by import path or entry point, and refused with a reason otherwise."""

from __future__ import annotations

import pytest

from toolrec.errors import ConfigError
from toolrec.surrogate import Surrogate
from toolrec.util.plugins import load_plugin


def test_a_part_is_found_by_its_import_path():
    assert load_plugin("strategy", "toolrec.surrogate:Surrogate") is Surrogate


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_such_module:Thing", "no strategy here .*no_such_module"),
        ("toolrec.surrogate:Nothing", "no strategy here .*Nothing"),
        (":Surrogate", "no strategy here"),
        ("toolrec.surrogate:__all__", "cannot be called"),
        ("mine", "no strategy of this name; got: mine; allowed: .*none is installed"),
    ],
)
def test_a_part_that_is_not_there_is_named(name: str, reason: str):
    with pytest.raises(ConfigError, match=reason):
        load_plugin("strategy", name)
