"""The response cache, and recordings: what is the same call, what is kept, what a miss says."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toolrec.errors import (
    ConfigError,
    ContextTooLongError,
    LLMError,
    LLMRefusedError,
    LLMUnavailableError,
    MessagesRefusedError,
    RecordingError,
)
from toolrec.llm import LLMConfig
from toolrec.llm.call_site import CALL_SITE, CallSite
from toolrec.llm.scripted import ScriptedLLM, calling
from toolrec.llm.stores.cache import CACHE_FILE, ReplyCache
from toolrec.llm.stores.config import ReplyStores
from toolrec.llm.stores.recording import (
    Recorder,
    Recording,
    RecordingHeader,
    begin_recording,
    checksum,
    end_recording,
    read_header,
)
from toolrec.llm.stores.storing import ReplyStore, StoredCall, StoringLLM, parameters_of, reply_from_json, reply_to_json
from toolrec.records import Completion, Usage

CONFIG = LLMConfig(base_url="http://127.0.0.1:1/v1", model="m", temperature=0.0)
ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße \ud800?"}]
TOOL = {"type": "function", "function": {"name": "retrieve"}}
REPLY = replace(
    calling(("retrieve", {"k": 5}), text="Thinking …"),
    usage=Usage(num_calls=1, num_attempts=2, prompt_tokens=90, cached_tokens=50, completion_tokens=10),
    reasoning="because",
)
STORED = Usage(num_calls=1, num_stored_replies=1, saved_prompt_tokens=90, saved_completion_tokens=10, saved_cached_tokens=50)
FROM_STORE = replace(REPLY, usage=STORED)


def ask(store: ReplyStore, llm: ScriptedLLM | None, config: LLMConfig = CONFIG, **call: Any) -> Completion:
    return asyncio.run(StoringLLM(store, llm, config).complete(call.pop("messages", ASK), **call))


def at(user_id: str, number: int = 1, attempt: int = 1) -> None:
    CALL_SITE.set(CallSite(user_id=user_id, attempt=attempt, round=number))


@pytest.fixture(autouse=True)
def nowhere() -> Iterator[None]:
    token = CALL_SITE.set(None)
    yield
    CALL_SITE.reset(token)


class Now:
    def __init__(self) -> None:
        self.value_s = 1000.0

    def __call__(self) -> float:
        return self.value_s


def cache_at(folder: Path, **given: Any) -> ReplyCache:
    return ReplyCache(folder, **{"endpoint": "http://here/v1", **given})


class TestCache:
    """`ReplyCache`."""

    def test_the_same_call_is_paid_once_and_comes_back_whole(self, tmp_path: Path):
        llm, cache = ScriptedLLM([REPLY]), cache_at(tmp_path)
        assert ask(cache, llm, tools=[TOOL]) == REPLY
        assert ask(cache, llm, tools=[TOOL]) == FROM_STORE
        assert len(llm.calls) == 1
        cache.close()

    def test_it_is_there_for_the_next_process(self, tmp_path: Path):
        first = cache_at(tmp_path)
        ask(first, ScriptedLLM([REPLY]))
        first.close()
        second = cache_at(tmp_path)
        assert ask(second, ScriptedLLM([])) == FROM_STORE
        second.close()

    @pytest.mark.parametrize(
        ("config", "call", "endpoint"),
        [
            (CONFIG.replaced(model="n"), {}, "http://here/v1"),
            (CONFIG.replaced(temperature=0.1), {}, "http://here/v1"),
            (CONFIG.replaced(seed=1), {}, "http://here/v1"),
            (CONFIG.replaced(max_output_tokens=10), {}, "http://here/v1"),
            (CONFIG, {"tools": [TOOL]}, "http://here/v1"),
            (CONFIG, {"stop": ["\n"]}, "http://here/v1"),
            (CONFIG, {"messages": [*ASK, {"role": "user", "content": "?"}]}, "http://here/v1"),
            (CONFIG, {"messages": ASK[::-1]}, "http://here/v1"),
            (CONFIG, {}, "http://there/v1"),
        ],
    )
    def test_whatever_a_reply_depends_on_makes_it_another_call(
        self, tmp_path: Path, config: LLMConfig, call: dict[str, Any], endpoint: str
    ):
        kept = cache_at(tmp_path)
        ask(kept, ScriptedLLM([REPLY]))
        kept.close()
        other = cache_at(tmp_path, endpoint=endpoint)
        assert ask(other, ScriptedLLM([calling(text="new")]), config, **call).text == "new"
        other.close()

    def test_replies_expire_and_are_then_replaced(self, tmp_path: Path):
        now = Now()
        cache = cache_at(tmp_path, max_age_s=60, clock=now)
        llm = ScriptedLLM([REPLY, calling(text="new")])
        ask(cache, llm)
        now.value_s += 60
        assert ask(cache, llm) == FROM_STORE
        now.value_s += 1
        assert ask(cache, llm).text == "new"
        assert ask(cache, llm).text == "new"
        cache.close()
        again = cache_at(tmp_path, max_age_s=60, clock=now)
        assert ask(again, ScriptedLLM([])).text == "new"
        again.close()

    @pytest.mark.parametrize(
        "reply",
        [
            Completion(text="half a", finish_reason="length"),
            Completion(text="", finish_reason="content_filter"),
            Completion(text=""),
        ],
    )
    def test_what_is_no_whole_reply_is_not_kept(self, tmp_path: Path, reply: Completion):
        cache = cache_at(tmp_path)
        llm = ScriptedLLM([reply, calling(text="whole")])
        ask(cache, llm)
        assert ask(cache, llm).text == "whole"
        cache.close()

    def test_errors_are_not_kept(self, tmp_path: Path):
        cache = cache_at(tmp_path)
        llm = ScriptedLLM([LLMUnavailableError("down"), REPLY])
        with pytest.raises(LLMUnavailableError):
            ask(cache, llm)
        assert ask(cache, llm) == REPLY
        cache.close()

    def test_neither_the_address_nor_a_prompt_is_in_the_file(self, tmp_path: Path):
        cache = cache_at(tmp_path, endpoint="http://secret-host/v1")
        ask(cache, ScriptedLLM([REPLY]))
        cache.close()
        content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert b"secret-host" not in content and b"Be brief" not in content
        assert b"Thinking" in content

    def test_many_processes_share_one_file(self, tmp_path: Path):
        code = f"""
import asyncio, sys
from pathlib import Path
from toolrec.llm import LLMConfig
from toolrec.llm.stores.cache import ReplyCache
from toolrec.llm.scripted import ScriptedLLM
from toolrec.llm.stores.storing import StoringLLM
cache = ReplyCache(Path({str(tmp_path)!r}), endpoint="e")
llm = StoringLLM(cache, ScriptedLLM(lambda messages: messages[0]["content"]), LLMConfig(model="m", base_url="http://127.0.0.1:1/v1"))
async def go():
    for number in range(300):
        await llm.complete([{{"role": "user", "content": f"{{sys.argv[1]}} {{number}}"}}])
asyncio.run(go())
cache.close()
"""
        running = [subprocess.Popen([sys.executable, "-c", code, str(n)], stderr=subprocess.PIPE, text=True) for n in range(4)]
        for process in running:
            _, said = process.communicate(timeout=500)
            assert (process.returncode, said) == (0, "")
        with sqlite3.connect(tmp_path / CACHE_FILE) as connection:
            assert connection.execute("SELECT count(*) FROM replies").fetchone() == (4 * 300,)

    def test_a_cache_that_breaks_later_is_not_used_any_more_and_says_so(self, tmp_path: Path, caplog: pytest.LogCaptureFixture):
        cache = cache_at(tmp_path)
        with sqlite3.connect(tmp_path / CACHE_FILE) as connection:
            connection.execute("DROP TABLE replies")
        llm = ScriptedLLM([REPLY, REPLY, REPLY])
        for _ in range(3):
            assert ask(cache, llm) == REPLY
        cache.close()
        assert [record.message for record in caplog.records] == [
            "the response cache is not used any more: no such table: replies"
        ]

    def test_a_file_that_is_no_cache_is_refused(self, tmp_path: Path):
        (tmp_path / CACHE_FILE).write_bytes(b"something else entirely" * 100)
        with pytest.raises(ConfigError, match="cannot be used"):
            cache_at(tmp_path)

    def test_a_cache_of_another_layout_is_refused(self, tmp_path: Path):
        with sqlite3.connect(tmp_path / CACHE_FILE) as connection:
            connection.execute("PRAGMA user_version = 99")
        with pytest.raises(ConfigError, match="another layout"):
            cache_at(tmp_path)


HEADER = RecordingHeader(model="m", parameters=parameters_of(CONFIG), settings={"rounds": 7, "seed": 0})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recording that has begun."""
    begin_recording(tmp_path / "recording", HEADER, is_resumed=False)
    return tmp_path / "recording"


def record(folder: Path, *replies: Completion, **call: Any) -> None:
    recorder = Recorder(folder)
    for reply in replies:
        ask(recorder, ScriptedLLM([reply]), **call)


class TestRecording:
    """`Recorder` and `Recording`."""

    def test_a_replay_gives_what_was_recorded_without_an_endpoint(self, folder: Path):
        at("u1")
        record(folder, REPLY, tools=[TOOL], stop=["\n"])
        assert ask(Recording(folder), None, tools=[TOOL], stop=["\n"]) == FROM_STORE

    def test_every_user_gets_its_own_reply_to_the_same_call(self, folder: Path):
        for user_id in ("u1", "u2"):
            at(user_id)
            record(folder, Completion(text=f"to {user_id}"))
        recording = Recording(folder)
        for user_id, text in (("u2", "to u2"), ("u1", "to u1"), ("u3", "to u1")):
            at(user_id)
            assert ask(recording, None).text == text

    def test_a_call_made_twice_in_a_round_gets_its_replies_in_order(self, folder: Path):
        at("u1")
        record(folder, Completion(text="first"), Completion(text="second"))
        recording = Recording(folder)
        assert [ask(recording, None).text for _ in range(3)] == ["first", "second", "second"]
        at("u1", attempt=2)  # done again from the start
        assert ask(recording, None).text == "first"

    def test_a_round_done_again_is_replayed_as_it_counted(self, folder: Path):
        at("u1", attempt=1)
        record(folder, Completion(text="void"))
        at("u1", attempt=2)
        record(folder, Completion(text="counted"))
        at("u1", attempt=1)
        assert ask(Recording(folder), None).text == "counted"

    def test_finding_the_latest_of_many_looks_at_each_a_few_times(self, folder: Path):
        looks = 0

        class Attempt(int):
            def __gt__(self, other: int) -> bool:
                nonlocal looks
                looks += 1
                return int(self) > other

        at("u1")
        record(folder, *[REPLY] * 50)
        recording = Recording(folder)
        for [*lines] in recording._by_key.values():
            for line in lines:
                line["attempt"] = Attempt(line["attempt"])
        assert ask(recording, None) == FROM_STORE
        assert 0 < looks < 2 * 50

    @pytest.mark.parametrize(
        ("config", "call", "reason"),
        [
            (CONFIG.replaced(temperature=0.5), {}, "temperature was 0.0, now 0.5"),
            (CONFIG.replaced(model="n"), {}, "the model was m, now n"),
            (CONFIG, {"tools": [TOOL]}, "the tools differ"),
            (CONFIG, {"stop": ["\n"]}, "the stop differ"),
            (CONFIG, {"messages": [ASK[0], {"role": "user", "content": "!"}]}, "message 2 of 2 (user) is another one"),
            (CONFIG, {"messages": ASK[:1]}, "it had 2 messages, now 1"),
        ],
    )
    def test_a_miss_says_whose_call_it_was_and_what_differs(
        self, folder: Path, config: LLMConfig, call: dict[str, Any], reason: str
    ):
        at("u1", number=3)
        record(folder, REPLY)
        with pytest.raises(RecordingError) as caught:
            ask(Recording(folder), None, config, **call)
        assert f"no reply for user u1 in round 3: {reason}" in str(caught.value)

    def test_a_miss_where_nothing_was_recorded(self, folder: Path):
        at("u1")
        record(folder, REPLY)
        at("u2")
        with pytest.raises(RecordingError, match="user u2 in round 1: nothing was recorded there"):
            ask(Recording(folder), None, messages=ASK[:1])

    @pytest.mark.parametrize("error", [ContextTooLongError, LLMRefusedError, MessagesRefusedError, LLMUnavailableError])
    @pytest.mark.parametrize("status", [None, 400])
    def test_a_call_that_failed_fails_again_without_its_words(self, folder: Path, error: type[LLMError], status: int | None):
        at("u1")
        with pytest.raises(error):
            ask(Recorder(folder), ScriptedLLM([error("http://secret-host/v1 says no", http_status=status)]))
        with pytest.raises(error, match="failed when it was recorded") as caught:
            ask(Recording(folder), None)
        assert caught.value.http_status == status
        assert b"secret-host" not in b"".join(path.read_bytes() for path in folder.iterdir())

    def test_parts_become_one_file_in_an_order_without_chance(self, folder: Path):
        for user_id, number in (("u2", 1), ("u1", 2), ("u1", 1)):
            at(user_id, number)
            record(folder, REPLY, messages=[{"role": "user", "content": f"{user_id} {number}"}])
        before = checksum(folder)
        end_recording(folder)
        assert sorted(path.name for path in folder.iterdir()) == ["recording.json", "replies.jsonl"]
        lines = [json.loads(text) for text in (folder / "replies.jsonl").read_text().splitlines()]
        assert [(line["user_id"], line["round"]) for line in lines] == [("u1", 1), ("u1", 2), ("u2", 1)]
        assert checksum(folder) == before

    def test_a_resumed_run_goes_on_with_its_recording(self, folder: Path):
        at("u1")
        record(folder, REPLY)
        end_recording(folder)
        begin_recording(folder, HEADER, is_resumed=True)
        at("u2")
        record(folder, Completion(text="more"))
        end_recording(folder)
        assert len((folder / "replies.jsonl").read_text().splitlines()) == 2
        with pytest.raises(RecordingError, match="there is a recording already"):
            begin_recording(folder, HEADER, is_resumed=False)
        with pytest.raises(RecordingError, match="rounds was 7, now 5"):
            begin_recording(folder, replace(HEADER, settings={"rounds": 5}), is_resumed=True)

    def test_a_line_that_a_kill_cut_short_is_left_out_and_a_damaged_one_is_not(self, folder: Path):
        at("u1")
        record(folder, REPLY)
        [part] = folder.glob("replies-*.jsonl")
        whole = part.read_bytes()
        part.write_bytes(whole + whole[:40])
        assert ask(Recording(folder), None) == FROM_STORE
        part.write_bytes(whole[:40] + b"\n" + whole)
        with pytest.raises(RecordingError, match="line 1 of the recording is damaged"):
            Recording(folder)

    @pytest.mark.parametrize("dropped", ["user_id", "round", "attempt", "key", "call"])
    def test_a_line_that_lacks_something_is_damaged(self, folder: Path, dropped: str):
        at("u1")
        record(folder, REPLY)
        [part] = folder.glob("replies-*.jsonl")
        line = json.loads(part.read_text())
        for damaged in ({name: line[name] for name in line if name != dropped}, {**line, dropped: None}, [line]):
            part.write_text(json.dumps(damaged) + "\n")
            with pytest.raises(RecordingError, match="line 1 of the recording is damaged"):
                Recording(folder)

    @pytest.mark.parametrize("dropped", ["model", "parameters", "settings"])
    def test_a_header_that_lacks_something_is_damaged(self, folder: Path, dropped: str):
        header = json.loads((folder / "recording.json").read_text())
        for damaged in ({name: header[name] for name in header if name != dropped}, {**header, dropped: []}):
            (folder / "recording.json").write_text(json.dumps(damaged))
            with pytest.raises(RecordingError, match=f"damaged: it has no {dropped}"):
                read_header(folder)
        for damaged_text in ("[]", f'{{"schema_version": {"9" * 5000}}}'):
            (folder / "recording.json").write_text(damaged_text)
            with pytest.raises(RecordingError, match=r"recording\.json"):
                read_header(folder)

    def test_no_recording_here(self, tmp_path: Path):
        with pytest.raises(RecordingError, match=r"recording\.json"):
            read_header(tmp_path)

    def test_what_a_recording_holds(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-marker-0123456789")
        at("u1")
        record(folder, REPLY)
        content = b"".join(path.read_bytes() for path in folder.iterdir())
        for kept_out in (b"sk-marker", b"127.0.0.1", b"Be brief"):
            assert kept_out not in content
        [line] = [json.loads(text) for path in folder.glob("*.jsonl") for text in path.read_text().splitlines()]
        assert set(line) == {"key", "user_id", "attempt", "round", "call", "reply"}


def test_a_reply_from_the_cache_is_recorded_with_what_it_had_cost(tmp_path: Path):
    assert reply_to_json(FROM_STORE) == reply_to_json(REPLY)
    assert reply_from_json(json.loads(json.dumps(reply_to_json(REPLY)))) == FROM_STORE


def test_a_reply_that_was_stored_without_its_cached_tokens_is_still_read():
    kept = reply_to_json(REPLY)
    del kept["cached_tokens"]
    assert reply_from_json(kept) == replace(FROM_STORE, usage=replace(STORED, saved_cached_tokens=0))


def test_the_key_does_not_depend_on_the_order_of_fields():
    turned = [dict(reversed(message.items())) for message in ASK]
    keys = {StoredCall("m", parameters_of(CONFIG), messages, None, None).key for messages in (ASK, turned)}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"replay": "r", "cache": "c"}, "--replay goes with neither"),
        ({"replay": "r", "record": "c"}, "--replay goes with neither"),
        ({"max_age_s": 3.0}, "--cache-max-age needs --cache"),
        ({"cache": "c", "max_age_s": 0.0}, "above 0"),
    ],
)
def test_stores_that_do_not_go_together(given: dict[str, Any], reason: str):
    with pytest.raises(ConfigError, match=reason):
        ReplyStores(**given)


def test_stores_wrap_each_other_and_a_replay_needs_no_client(tmp_path: Path, folder: Path):
    asked = ScriptedLLM([REPLY])
    stores = ReplyStores(endpoint="e", cache=str(tmp_path / "cache"), record=str(folder))
    llm = stores.wrap(CONFIG, asked)
    assert asyncio.run(llm.complete(ASK)) == REPLY
    assert asyncio.run(llm.complete(ASK)) == FROM_STORE

    replayed = ReplyStores(replay=str(folder)).wrap(CONFIG, None)
    assert asyncio.run(replayed.complete(ASK)) == FROM_STORE
