"""A small world in the prompt grammar, and endpoints on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from toolrec.llm.embedded import EmbeddedOptions, EmbeddedServer, run_in_thread


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedServer]:
    with run_in_thread(EmbeddedOptions()) as server:
        yield server
