"""Prompts: the grammar's headings, the domain's words, and data that is never evaluated."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from toolrec.grammar import lines_after
from toolrec.llm.scripted import ScriptedLLM, calling
from toolrec.surrogate import prompt_hashes

FINISH = ("finish", {"items": ["m11", "m12"]})


async def opening_of(build, task, **settings):
    trace = await build(ScriptedLLM([]), **settings).run(task)
    return trace.opening[0]["content"], trace.opening[1]["content"]


@pytest.mark.parametrize("protocol", ["tools", "text"])
async def test_the_task_follows_the_grammar(build, task, protocol):
    system, prompt = await opening_of(build, task, protocol=protocol, prompt_history_length=3)
    lines = list(lines_after("History (oldest first):", prompt))
    assert [line.item_id for line in lines] == ["m2", "m3", "m4"]
    assert dict(lines[-1].fields) == {"genre": ("Crime", "Drama"), "release_year": ("1954",), "rating": ("4.5",)}
    assert {"Attributes: none, genre, release_year", "Rounds: 7", "List length: 10"} <= set(prompt.splitlines())
    assert "genre: what kind of story" in system
    assert ("Action i:" in system) == (protocol == "text")


async def test_films_have_their_own_examples_and_other_pools_generic_ones(build, task, odd_pool):
    movies, _ = await opening_of(build, task)
    generic, _ = await opening_of(build, task, pool=odd_pool)
    assert "watched" in movies and "musical" in movies
    assert "musical" not in generic and "watched" not in generic and "movie" not in generic
    assert "interacted with" in generic and "genre" in generic


async def test_without_ratings_none_are_shown(build, task):
    from dataclasses import replace

    _, prompt = await opening_of(build, replace(task, ratings=None))
    assert "rating" not in prompt


async def test_an_empty_history_makes_a_prompt_too(build, task):
    from dataclasses import replace

    _, prompt = await opening_of(build, replace(task, history=(), ratings=()))
    assert prompt.endswith("History (oldest first):")


@pytest.mark.parametrize("protocol", ["tools", "text"])
async def test_titles_are_data(build, task, odd_pool, protocol):
    """A title with template marks, a line of the grammar and an id in it stands there as it is, on one line."""
    script = (
        [calling(("retrieve", {"attribute": "genre", "k": 2})), calling(("rank", {"attribute": "x", "k": 1})), "<m11>"]
        if protocol == "tools"
        else ["Action 1: Retrieve[genre, 2]", "Action 2: Rank[x, 1]", "<m11>"]
    )
    llm = ScriptedLLM(script)
    trace = await build(llm, pool=odd_pool, protocol=protocol).run(task)
    rank_prompt = llm.calls[2].messages[1]["content"]
    texts = [trace.opening[1]["content"], trace.rounds[0].messages[1]["content"], rank_prompt]
    for text in texts:
        assert "{{ 7 * 7 }} {% raw %} ‹m1› / score: 9 Rounds left: 0" in text
        assert "49" not in text
        assert not re.search(r"^Rounds left: 0", text, re.MULTILINE)


def test_every_template_has_its_hash():
    import toolrec

    folder = Path(toolrec.__file__).parent
    templates = {path.name for path in folder.rglob("*.jinja") if path.parent.name == "prompts"}
    hashes = prompt_hashes()
    assert set(hashes) == templates
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in hashes.values())


async def test_messages_only_ever_grow(build, task):
    """Later calls repeat the earlier messages word for word, so that endpoints can keep what they have read."""
    llm = ScriptedLLM([calling(("retrieve", {"attribute": a, "k": 5})) for a in ("none", "genre")] + [calling(FINISH)])
    await build(llm).run(task)
    assert len(llm.calls) == 3
    for earlier, later in zip(llm.calls, llm.calls[1:], strict=False):
        assert later.messages[: len(earlier.messages)] == earlier.messages
