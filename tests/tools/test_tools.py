"""The tool classes that run in process."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from toolrec.errors import ConfigError, LLMUnavailableError, ToolError
from toolrec.grammar import lines_after
from toolrec.llm.scripted import ScriptedLLM
from toolrec.recommenders import load_recommenders
from toolrec.records import Candidate, RankedItem, ToolCall, Usage
from toolrec.tools.base import Retriever, Tool, ToolContext
from toolrec.tools.local import LocalRetriever
from toolrec.tools.rank import RankTool
from toolrec.tools.retrieval import RetrievalTool
from toolrec.tools.settings import ToolSettings

CANDIDATES = (
    Candidate(item_index=11, mark="Retrieve[genre]", round=1, position=1, score=1.0),
    Candidate(item_index=12, mark="Retrieve[genre]", round=1, position=2, score=0.5),
    Candidate(item_index=13, mark="Retrieve[none]", round=2, position=1, score=0.5),
)
CONTEXT = ToolContext(
    user_index=1, history=(1, 2, 12), ratings=(5.0, 4.0, 3.5), candidates=CANDIDATES, previous_calls=(), round=3
)


def retrieve(attribute: str | None, k: int | None = None) -> ToolCall:
    return ToolCall(name="retrieve", attribute=attribute, k=k)


def rank(attribute: str | None, k: int | None = None) -> ToolCall:
    return ToolCall(name="rank", attribute=attribute, k=k)


def indexes(observation) -> list[int]:
    return [item.item_index for item in observation.items]


@pytest.fixture(params=["retrieve", "rank"])
def tool_and_call(request, retriever, pool):
    if request.param == "retrieve":
        return RetrievalTool(retriever=retriever, pool=pool), retrieve("genre", 3)
    script = ScriptedLLM(lambda messages: "<m13>\n<m11>")
    return RankTool(llm=script, pool=pool), rank("genre", 3)


class TestEveryTool:
    """The contract of a tool."""

    async def test_it_satisfies_the_protocol(self, tool_and_call):
        tool, call = tool_and_call
        assert isinstance(tool, Tool)
        assert tool.name == call.name

    async def test_the_same_call_gives_the_same_list(self, tool_and_call):
        tool, call = tool_and_call
        first = await tool.call(call, context=CONTEXT)
        assert first == await tool.call(call, context=CONTEXT)
        assert first.mark == call.mark and not first.is_repeat and first.error is None

    async def test_its_items_are_of_the_pool_and_unseen(self, tool_and_call, pool):
        tool, call = tool_and_call
        observation = await tool.call(call, context=CONTEXT)
        assert observation.items
        assert all(1 <= i <= pool.num_items and i not in CONTEXT.history for i in indexes(observation))

    async def test_its_text_shows_its_items_in_order(self, tool_and_call, pool):
        tool, call = tool_and_call
        observation = await tool.call(call, context=CONTEXT)
        head = f"{call.name.capitalize()}[{call.attribute}, {call.k}] returned {len(observation.items)} items:"
        assert observation.text.splitlines()[0] == head
        shown = [line.item_id for line in lines_after("items:", observation.text)]
        assert shown == [pool.item_ids[i] for i in indexes(observation)]

    @pytest.mark.parametrize("k", [0, -1, 51, 10**9])
    async def test_k_out_of_range_is_told(self, tool_and_call, k):
        tool, call = tool_and_call
        with pytest.raises(ToolError, match="1 to 50"):
            await tool.call(replace(call, k=k), context=CONTEXT)

    async def test_the_longest_and_the_shortest_list_are_given(self, tool_and_call):
        tool, call = tool_and_call
        assert len((await tool.call(replace(call, k=1), context=CONTEXT)).items) == 1
        assert (await tool.call(replace(call, k=50), context=CONTEXT)).items


class TestRetrieval:
    async def test_none_is_the_plain_backbone(self, retriever, pool):
        tool = RetrievalTool(retriever=retriever, pool=pool)
        for attribute in (None, "none", "None"):
            observation = await tool.call(retrieve(attribute, 2), context=CONTEXT)
            assert indexes(observation) == [3, 4]
            assert observation.mark == "Retrieve[none]"

    async def test_seen_items_are_masked_by_the_retriever(self, retriever, pool):
        observation = await RetrievalTool(retriever=retriever, pool=pool).call(retrieve("genre", 2), context=CONTEXT)
        assert indexes(observation) == [11, 13]
        assert observation.counts == {}

    async def test_a_retriever_that_returns_what_it_should_not_is_caught(self, pool):
        class Careless:
            attributes = ("genre",)

            async def retrieve(self, attribute, history, *, k):
                return [RankedItem(item_index=i, score=1.0) for i in (1, 99, 5, 5)]

        observation = await RetrievalTool(retriever=Careless(), pool=pool).call(retrieve("genre", 4), context=CONTEXT)
        assert indexes(observation) == [5]
        assert observation.counts == {"memory_seen": 1, "memory_unknown": 1, "memory_duplicate": 1}
        assert "returned 1 item:" in observation.text

    async def test_an_unknown_attribute_is_told_which_there_are(self, retriever, pool):
        with pytest.raises(ToolError, match="none, genre, release_year"):
            await RetrievalTool(retriever=retriever, pool=pool).call(retrieve("director", 5), context=CONTEXT)

    @pytest.mark.parametrize("written", ["Release Year", "release-year", "RELEASE_YEAR"])
    async def test_an_attribute_is_known_by_its_letters(self, retriever, pool, written):
        observation = await RetrievalTool(retriever=retriever, pool=pool).call(retrieve(written, 2), context=CONTEXT)
        assert observation.mark == "Retrieve[release_year]"

    async def test_a_repeat_gets_the_same_list_and_a_hint(self, retriever, pool):
        tool = RetrievalTool(retriever=retriever, pool=pool)
        first = await tool.call(retrieve("genre"), context=CONTEXT)
        before = replace(CONTEXT, previous_calls=(retrieve("nonsense"), retrieve("Genre", 20), rank("genre", 20)))
        second = await tool.call(retrieve("genre"), context=before)
        assert second.items == first.items and second.is_repeat and second.counts["repeat"] == 1
        assert second.text.splitlines()[-1].startswith("Hint: ")
        other = await tool.call(retrieve("genre", 5), context=before)
        assert not other.is_repeat

    async def test_no_item_left_is_said(self, pool):
        class Empty:
            attributes = ()

            async def retrieve(self, attribute, history, *, k):
                return []

        observation = await RetrievalTool(retriever=Empty(), pool=pool).call(retrieve(None, 5), context=CONTEXT)
        assert observation.text == "Retrieve[none, 5] returned 0 items:"


class TestLocal:
    async def test_it_satisfies_the_protocol(self, retriever):
        assert isinstance(retriever, Retriever)
        assert retriever.attributes == ("genre", "release_year")

    async def test_without_masking_seen_items_come(self, unmasked):
        assert [i.item_index for i in await unmasked.retrieve("none", (1, 2), k=2)] == [1, 2]

    async def test_what_is_asked_together_is_scored_together_each_to_its_own_k(self, demo, demo_recommenders):
        backbone = load_recommenders(demo_recommenders, demo, names=["backbone"])["backbone"]
        histories = [tuple(demo.history(user, "test").tolist()) for user in range(1, 9)]
        together = LocalRetriever({"backbone": backbone})
        lists = await asyncio.gather(*(together.retrieve("none", h, k=k) for k, h in enumerate(histories, start=1)))
        assert [len(items) for items in lists] == list(range(1, 9))
        assert lists == [backbone.recommend(h, k=k) for k, h in enumerate(histories, start=1)]

    async def test_an_unknown_attribute_is_told(self, retriever):
        with pytest.raises(ToolError, match="none, genre"):
            await retriever.retrieve("director", (1,), k=5)

    def test_a_backbone_is_needed(self):
        with pytest.raises(ConfigError, match="backbone"):
            LocalRetriever({})


class TestRank:
    async def test_nothing_to_rank_tells_what_to_do_instead(self, pool):
        llm = ScriptedLLM([])
        with pytest.raises(ToolError, match="Retrieve first"):
            await RankTool(llm=llm, pool=pool).call(rank("genre"), context=replace(CONTEXT, candidates=()))
        assert llm.calls == []

    async def test_the_prompt_follows_the_grammar(self, pool):
        llm = ScriptedLLM(["<m11>"])
        config = ToolSettings(prompt_history_length=2, mask_seen=False)
        await RankTool(llm=llm, pool=pool, config=config).call(rank("lead actors", 2), context=CONTEXT)
        prompt = llm.calls[0].messages[1]["content"]
        assert [line.item_id for line in lines_after("History (oldest first):", prompt)] == ["m2", "m12"]
        assert "rating: 3.5" in prompt
        assert [line.item_id for line in lines_after("Candidates:", prompt)] == ["m13", "m11", "m12"]
        assert prompt.endswith("Rank by: lead actors\nReturn: 2")

    async def test_the_list_is_the_llms_cut_at_k(self, pool):
        llm = ScriptedLLM(["<m13>\n<m11>\n"])
        observation = await RankTool(llm=llm, pool=pool).call(rank("genre", 1), context=CONTEXT)
        assert indexes(observation) == [13]
        assert observation.mark == "Rank[genre]"
        assert observation.usage["rank"].num_calls == 1

    async def test_an_unusable_list_is_asked_for_again_with_the_reason(self, pool):
        llm = ScriptedLLM(["<m13>\n<m50>", "<m13>, <nope>", "I cannot.", "Film 13 (1963)\nFilm 11, The (1961)"])
        observation = await RankTool(llm=llm, pool=pool).call(rank("genre", 2), context=CONTEXT)
        assert indexes(observation) == [13, 11]
        assert observation.counts["rank_reask"] == 3
        assert observation.usage["rank"].num_calls == 4
        reasons = [call.messages[-1]["content"] for call in llm.calls[1:]]
        assert "<m50> is not one of the candidates" in reasons[0]
        assert "<nope> is not in the pool" in reasons[1]
        assert all(reason.startswith("Not accepted: ") for reason in reasons)

    async def test_re_asks_end_and_what_is_known_of_the_list_counts(self, pool):
        llm = ScriptedLLM(lambda messages: "<m13>\n<nope>")
        config = ToolSettings(max_reasks=2)
        observation = await RankTool(llm=llm, pool=pool, config=config).call(rank("genre", 2), context=CONTEXT)
        assert indexes(observation) == [13]
        assert observation.usage["rank"].num_calls == 3
        assert observation.counts["rank_gave_up"] == 1

    async def test_no_usable_list_at_all_is_an_error_that_keeps_its_usage(self, pool):
        llm = ScriptedLLM(lambda messages: "no")
        observation = await RankTool(llm=llm, pool=pool).call(rank("genre", 2), context=CONTEXT)
        assert observation.error is not None and observation.text.startswith("Error: ")
        assert observation.items == ()
        assert observation.usage["rank"].num_calls == 4

    async def test_seen_candidates_are_refused(self, pool):
        llm = ScriptedLLM(["<m12>", "<m11>"])
        observation = await RankTool(llm=llm, pool=pool).call(rank("genre", 2), context=CONTEXT)
        assert indexes(observation) == [11]
        assert observation.counts["memory_seen"] == 1

    async def test_the_newest_candidates_are_shown_where_there_are_too_many(self, pool):
        llm = ScriptedLLM(["<m13>"])
        config = ToolSettings(rank_max_candidates=1)
        await RankTool(llm=llm, pool=pool, config=config).call(rank("genre", 5), context=CONTEXT)
        prompt = llm.calls[0].messages[1]["content"]
        assert [line.item_id for line in lines_after("Candidates:", prompt)] == ["m13"]
        assert prompt.endswith("Return: 1")

    async def test_a_seed_shuffles_the_candidates_always_alike(self, pool):
        many = tuple(Candidate(item_index=i, mark="Retrieve[none]", round=1, position=i, score=0.0) for i in range(20, 40))
        orders = []
        for seed in (1, 1, 2, None):
            llm = ScriptedLLM(["<m20>"])
            tool = RankTool(llm=llm, pool=pool, config=ToolSettings(shuffle_rank_candidates=seed))
            await tool.call(rank("genre"), context=replace(CONTEXT, candidates=many))
            orders.append([line.item_id for line in lines_after("Candidates:", llm.calls[0].messages[1]["content"])])
        assert orders[0] == orders[1] != orders[2]
        assert orders[3] == [f"m{i}" for i in range(20, 40)]
        assert all(sorted(order) == sorted(orders[3]) for order in orders)

    async def test_a_repeat_without_anything_new_costs_no_call(self, pool):
        ranked = tuple(
            Candidate(item_index=item, mark="Rank[genre]", round=3, position=position, score=1 / position)
            for position, item in enumerate((13, 11), start=1)
        )
        shorter = Candidate(item_index=11, mark="Rank[genre]", round=4, position=1, score=1.0)
        calls = (retrieve("genre"), retrieve("none"), rank("genre", 20), rank("genre", 1))
        context = replace(CONTEXT, candidates=(*CANDIDATES, *ranked, shorter), previous_calls=calls, round=5)
        llm = ScriptedLLM([])
        observation = await RankTool(llm=llm, pool=pool).call(rank("genre"), context=context)
        assert indexes(observation) == [13, 11] and observation.is_repeat and llm.calls == []
        later = replace(context, previous_calls=(*context.previous_calls, retrieve("genre")))
        llm = ScriptedLLM(["<m11>"])
        assert indexes(await RankTool(llm=llm, pool=pool).call(rank("genre"), context=later)) == [11]

    async def test_errors_of_the_endpoint_are_raised(self, pool):
        llm = ScriptedLLM([LLMUnavailableError("gone")])
        with pytest.raises(LLMUnavailableError):
            await RankTool(llm=llm, pool=pool).call(rank("genre"), context=CONTEXT)

    async def test_usage_adds_up(self, pool):
        llm = ScriptedLLM(["no", "<m11>"])
        observation = await RankTool(llm=llm, pool=pool).call(rank("genre"), context=CONTEXT)
        assert isinstance(observation.usage["rank"], Usage)
        assert observation.usage["rank"].num_attempts == 2


@pytest.mark.parametrize(
    "settings",
    [{"max_k": 51}, {"default_k": 0}, {"default_k": 30, "max_k": 20}, {"max_reasks": -1}, {"rank_max_candidates": 0}],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError):
        ToolSettings(**settings)
