"""The guard before the HTTP door: caller, rate, size, kind; one shape for every error; nothing that crashes it."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ray.exceptions import RayActorError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from toolrec.data import Dataset
from toolrec.errors import ConfigError, LLMUnavailableError, ToolError
from toolrec.serving.door import (
    MAX_CLIENTS,
    STRANGERS_BOUND,
    DoorRules,
    Refusal,
    Strangers,
    TokenBuckets,
    check_address,
    read_token,
)
from toolrec.serving.ingress import MAX_CANDIDATES, MAX_FIELDS, MAX_HISTORY, Answers

TOKEN = "a-token-of-this-very-test"
FOREIGN = "192.0.2.7"


def assert_refused(reply: Any, status: int, reason: str) -> None:
    """Fails unless the reply is an error of that status in the one shape."""
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/json"
    assert reason in reply.json()["detail"] and list(reply.json()) == ["detail"]
    assert "Traceback" not in reply.body.decode()


def through_proxy(caller: Any) -> Any:
    """The same application behind what Serve's proxies do with a loopback peer's `X-Forwarded-For`."""
    caller.app = ProxyHeadersMiddleware(caller.app, trusted_hosts="127.0.0.1")
    return caller


def history(demo: Dataset) -> list[str]:
    return [demo.pool.item_ids[item] for item in demo.history(5, "test")]


class TestCaller:
    def test_without_a_token_this_machine_is_answered_and_no_other(self, caller, demo):
        body = {"history": history(demo), "k": 3}
        for client in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
            assert caller.post("/v1/retrieve", body, client=client).status == 200
        for client in (FOREIGN, "2001:db8::1", "::ffff:192.0.2.7", "localhost.example", "127.0.0.1.example", None):
            assert_refused(caller.post("/v1/retrieve", body, client=client), 403, "only this machine is answered")

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:8000", "[::1].example", "192.0.2.7:8000", "[", "@127.0.0.1:x"]
    )
    def test_a_foreign_page_that_names_this_machine_is_refused(self, caller, demo, host):
        reply = caller.post("/v1/retrieve", {"history": history(demo)}, headers={"host": host})
        assert_refused(reply, 403, "only this machine is answered")

    @pytest.mark.parametrize("host", ["localhost:8000", "LOCALHOST", "127.0.0.1", "[::1]:8000"])
    def test_this_machine_has_several_names(self, caller, host):
        assert caller.get("/v1/attributes", headers={"host": host}).status == 200

    def test_with_a_token_every_address_needs_it(self, caller, demo):
        guarded = caller.under(token=TOKEN)
        body = {"history": history(demo), "k": 3}
        for client in ("127.0.0.1", FOREIGN, None):
            for value in ("", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer", "Bearer \xff"):
                reply = guarded.post("/v1/retrieve", body, client=client, headers={"authorization": value})
                assert_refused(reply, 401, "a bearer token is needed")
                assert reply.headers["www-authenticate"] == "Bearer" and TOKEN not in reply.body.decode()
            for value in (f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
                host = {"host": "tools.example", "authorization": value}
                assert guarded.post("/v1/retrieve", body, client=client, headers=host).status == 200

    @pytest.mark.parametrize(
        "path",
        ["/docs2", "/v1/docs", "/v1/attributes", "/v1/items", "/v1/items/1", "/nothing", "/healthz/", "//healthz", "/redoc"],
    )
    def test_nothing_but_health_and_the_documentation_is_open(self, caller, path):
        assert caller.under(token=TOKEN).get(path, client=FOREIGN).status == 401
        assert caller.get(path, client=FOREIGN).status == 403

    @pytest.mark.parametrize("path", ["/docs", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/openapi.json"])
    def test_a_browser_gets_the_documentation_where_there_is_a_token(self, caller, path):
        guarded = caller.under(token=TOKEN)
        assert guarded.get(path, client=FOREIGN).status == 200
        assert guarded.get(path, client=FOREIGN, root_path="/http").status == 200
        # With a token it is a request like any other: no way to try tokens.
        assert guarded.get(path, client=FOREIGN, headers={"authorization": "Bearer a-wrong-one"}).status == 401
        assert guarded.send("POST", path, client=FOREIGN).status == 401
        assert caller.get(path, client=FOREIGN).status == 403

    @pytest.mark.parametrize("root_path", ["", "/http"])
    def test_health_is_open_and_says_more_to_whoever_may_come_in(self, caller, demo, root_path):
        for guarded in (caller.under(token=TOKEN), caller):
            reply = guarded.get("/healthz", client=FOREIGN, root_path=root_path)
            assert (reply.status, reply.json()) == (200, {"status": "ok"})
        known = caller.under(token=TOKEN).get("/healthz", headers={"authorization": f"Bearer {TOKEN}"}, root_path=root_path)
        assert known.json()["dataset_checksum"] == demo.checksum

    def test_rules_do_not_show_the_token(self):
        assert TOKEN not in repr(DoorRules(token=TOKEN))


class TestAddress:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "tools.example", ""])
    def test_beyond_this_machine_a_token_is_needed_to_start(self, host):
        with pytest.raises(ConfigError, match=r"needs a bearer token.*token_env"):
            check_address(host, None)
        check_address(host, TOKEN)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", None])
    def test_on_this_machine_none_is_needed(self, host):
        check_address(host, None)

    @pytest.mark.parametrize(
        "value", ["", "short", "has a space in it, long", "with\ttab-and-more-letters", "größer-als-16-zeichen"]
    )
    def test_a_token_that_is_none_is_refused_without_being_quoted(self, monkeypatch, value):
        monkeypatch.setenv("TOOLREC_TEST_TOKEN", value)
        with pytest.raises(ConfigError, match="TOOLREC_TEST_TOKEN holds no usable token") as caught:
            read_token("TOOLREC_TEST_TOKEN")
        assert not value or value not in str(caught.value)

    def test_the_token_comes_from_the_environment(self, monkeypatch):
        monkeypatch.setenv("TOOLREC_TEST_TOKEN", f" {TOKEN}\n")
        assert read_token("TOOLREC_TEST_TOKEN") == TOKEN
        assert read_token(None) is None
        monkeypatch.delenv("TOOLREC_TEST_TOKEN")
        with pytest.raises(ConfigError):
            read_token("TOOLREC_TEST_TOKEN")


class TestRate:
    def test_a_bucket_gives_its_burst_and_then_what_comes_back(self):
        buckets = TokenBuckets(per_minute=30, burst=3)
        assert [buckets.wait_s("a", now_s=100.0) for _ in range(4)] == [0, 0, 0, 2]
        assert buckets.wait_s("b", now_s=100.0) == 0
        assert buckets.wait_s("a", now_s=101.0) == 1
        assert buckets.wait_s("a", now_s=102.0) == 0
        assert [buckets.wait_s("a", now_s=10_000.0) for _ in range(4)] == [0, 0, 0, 2]

    def test_the_quietest_client_is_forgotten_first(self):
        buckets = TokenBuckets(per_minute=1, burst=1)
        for number in range(MAX_CLIENTS + 50):
            buckets.wait_s(f"client {number}", now_s=0.0)
            assert buckets.wait_s("client 0", now_s=0.0) == 60
        assert len(buckets) == MAX_CLIENTS

    def test_too_many_requests_are_told_when_to_come_again(self, caller):
        limited = caller.under(requests_per_minute=6, burst=2)
        assert [limited.get("/healthz").status for _ in range(2)] == [200, 200]
        reply = limited.get("/healthz")
        assert_refused(reply, 429, "too many requests; try again in ")
        assert 1 <= int(reply.headers["retry-after"]) <= 10
        assert limited.get("/healthz", client=FOREIGN).status == 200

    def test_wrong_tokens_count(self, caller):
        limited = caller.under(token=TOKEN, requests_per_minute=1, burst=2)
        wrong = [limited.get("/docs", headers={"authorization": f"Bearer {n}"}).status for n in range(3)]
        assert wrong == [401, 401, 429]

    def test_this_machine_is_one_client_by_all_its_addresses(self, caller):
        limited = caller.under(requests_per_minute=1, burst=4)
        clients = ("127.0.0.1", "127.0.1.9", "::1", "::ffff:127.0.0.3", "127.200.0.1")
        assert [limited.get("/v1/attributes", client=client).status for client in clients] == [200] * 4 + [429]

    def test_a_header_that_names_another_address_each_time_guesses_no_faster(self, caller):
        limited = through_proxy(caller.under(token=TOKEN, requests_per_minute=0.01, burst=3))
        num_guesses = 3 * STRANGERS_BOUND

        def ask(address: str, token: str, path: str = "/docs") -> Any:
            return limited.get(path, headers={"x-forwarded-for": address, "authorization": f"Bearer {token}"})

        assert ask("192.0.2.1", TOKEN).status == 200
        assert [ask(f"198.51.100.{n}", f"guess {n}").status for n in range(num_guesses)] == [401] * num_guesses
        assert_refused(ask("203.0.113.1", "another guess"), 429, "too many wrong tokens; try again in ")
        # Were the right one let in here, guesses would go on; were health's answer another one, likewise.
        assert ask("203.0.113.2", TOKEN).status == 429
        assert ask("203.0.113.3", TOKEN, "/healthz").status == 429
        # Whoever has been in before stays in, and what shows no token is no guess.
        assert ask("192.0.2.1", TOKEN).status == 200
        assert limited.get("/v1/items", headers={"x-forwarded-for": "203.0.113.4"}).status == 401

    def test_right_tokens_are_no_guesses(self, caller):
        limited = caller.under(token=TOKEN, requests_per_minute=1, burst=2)
        header = {"authorization": f"Bearer {TOKEN}"}
        for n in range(4 * STRANGERS_BOUND):
            assert limited.get("/v1/attributes", client=f"192.0.2.{n}", headers=header).status == 200

    def test_one_address_does_not_lock_new_clients_out(self, caller):
        limited = caller.under(token=TOKEN, requests_per_minute=0.01, burst=5)
        wrong, right = ({"authorization": f"Bearer {token}"} for token in ("guess", TOKEN))
        assert [limited.get("/docs", client=FOREIGN, headers=wrong).status for _ in range(20)] == [401] * 5 + [429] * 15
        assert limited.get("/docs", client="192.0.2.8", headers=right).status == 200

    def test_the_client_that_was_unseen_for_longest_is_a_stranger_again(self):
        strangers = Strangers(per_minute=1, burst=1)
        for number in range(MAX_CLIENTS + 1):
            client = f"client {number}"
            assert strangers.wait_s(client, now_s=0.0) == 0
            strangers.was_right(client)
            strangers.was_right("client 0")
        assert len(strangers) == MAX_CLIENTS
        assert strangers.wait_s("a guess", now_s=0.0) == 0
        assert strangers.wait_s("client 0", now_s=0.0) == 0
        assert strangers.wait_s("client 1", now_s=0.0) == 60

    def test_an_ipv6_network_shares_a_bucket(self, caller):
        limited = caller.under(token=TOKEN, requests_per_minute=1, burst=1)
        assert [limited.get("/healthz", client=f"2001:db8::{n}").status for n in (1, 2)] == [200, 429]
        assert limited.get("/healthz", client="2001:db8:0:1::1").status == 200
        assert [limited.get("/healthz", client=c).status for c in ("192.0.2.9", "::ffff:192.0.2.9")] == [200, 429]


class TestOverload:
    """A route's tool answers when the test lets it: how many requests get that far is what is tested."""

    @staticmethod
    def statuses(caller: Any, demo: Dataset, *, num_lists: int, num_ranks: int, **rules: Any) -> list[int]:
        release = asyncio.Event()

        class Waiting:
            def __init__(self, *answer: Any) -> None:
                self.retrieve = self.rank = self
                self._answer = answer

            async def remote(self, *_: Any) -> Any:
                await release.wait()
                return self._answer

        checksums = {"dataset_checksum": "0", "recommenders_checksum": "0"}
        tools, rank = {"none": Waiting([1], [1.0])}, Waiting([1], [1.0], [])
        busy = caller.over(Answers(demo, tools=tools, rank=rank, description=checksums)).under(**rules)
        ranked = {"history": history(demo), "candidates": history(demo), "attribute": "genre"}

        async def ask() -> list[int]:
            bodies = [("/v1/retrieve", {"history": history(demo)})] * num_lists + [("/v1/rank", ranked)] * num_ranks
            asked = [asyncio.ensure_future(busy._send("POST", path, [json.dumps(body).encode()])) for path, body in bodies]
            await asyncio.sleep(0.05)
            refused = [reply.result().status for reply in asked if reply.done()]
            release.set()
            replies = await asyncio.gather(*asked)
            assert len(refused) == sum(reply.status != 200 for reply in replies) == len(replies) - 3
            for reply in replies:
                if reply.status == 503:
                    assert_refused(reply, 503, "too many requests in progress")
                    assert reply.headers["retry-after"] == "1"
            assert (await busy._send("GET", "/v1/attributes", [b""], client="127.0.0.1")).status in (200, 429)
            return refused

        return busy._loop.run_until_complete(ask())

    def test_what_is_beyond_the_bound_is_refused_at_once_and_rank_is_counted_apart(self, caller, demo):
        rules = {"max_in_progress": 2, "max_ranks_in_progress": 1}
        assert self.statuses(caller, demo, num_lists=5, num_ranks=3, **rules) == [503] * 5

    def test_the_rate_is_looked_at_first(self, caller, demo):
        rules = {"max_in_progress": 3, "requests_per_minute": 0.01, "burst": 5}
        assert self.statuses(caller, demo, num_lists=7, num_ranks=0, **rules) == [503, 503, 429, 429]


class TestItems:
    def test_items_are_listed_in_pages(self, caller, demo):
        first = caller.get("/v1/items", query="limit=2").json()
        assert [item["item_id"] for item in first["items"]] == demo.pool.item_ids[1:3] and first["has_more"]
        assert first["items"][0] == caller.get(f"/v1/items/{demo.pool.item_ids[1]}").json()
        last = caller.get("/v1/items", query=f"limit=100&offset={demo.num_items - 1}").json()
        assert [item["item_id"] for item in last["items"]] == [demo.pool.item_ids[-1]] and not last["has_more"]

    def test_items_are_found_by_a_part_of_their_id_or_title(self, caller, demo):
        pool = demo.pool
        part = pool.titles[7][2:9]
        expected = [
            i for i, title in enumerate(pool.titles) if i and part.casefold() in f"{pool.item_ids[i]}\t{title}".casefold()
        ]
        found = caller.get("/v1/items", query=f"limit=100&query={quote(part.upper())}").json()["items"]
        assert 7 in expected and [item["item_id"] for item in found] == [pool.item_ids[i] for i in expected]
        assert pool.item_ids[9] in {
            i["item_id"] for i in caller.get("/v1/items", query=f"query={pool.item_ids[9]}").json()["items"]
        }
        assert caller.get("/v1/items", query="query=no%20such%20title").json() == {"items": [], "has_more": False}

    @pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "offset=-1", "query=" + "x" * 201])
    def test_a_search_out_of_bounds(self, caller, query):
        assert_refused(caller.get("/v1/items", query=query), 422, query.partition("=")[0])


class TestOpenAPI:
    def test_every_status_that_a_route_may_answer_is_there_with_its_body(self, caller):
        described = caller.get("/openapi.json").json()
        assert set(described["paths"]) == {
            "/healthz", "/v1/attributes", "/v1/items", "/v1/items/{item_id}", "/v1/rank", "/v1/recommend", "/v1/retrieve",
        }  # fmt: skip
        always = {"200", "400", "401", "403", "408", "413", "415", "429", "500", "503"}
        for path, more in (("/v1/rank", {"422", "502"}), ("/v1/retrieve", {"422"}), ("/v1/items/{item_id}", {"404", "422"})):
            [operation] = described["paths"][path].values()
            assert set(operation["responses"]) == always | more
            assert operation["security"] == [{"HTTPBearer": []}]
            for status, response in operation["responses"].items():
                schema = response["content"]["application/json"]["schema"]["$ref"]
                assert schema.endswith("/ErrorReply") == (status != "200")
        assert described["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
        assert "HTTPValidationError" not in described["components"]["schemas"]

    @pytest.mark.parametrize("path", ["/v1/retrieve", "/v1/recommend", "/v1/rank"])
    def test_the_examples_are_requests(self, caller, path):
        described = caller.get("/openapi.json").json()
        body = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        [example] = described["components"]["schemas"][body.rpartition("/")[2]]["examples"]
        assert caller.post(path, example).status == 200

    def test_the_page_needs_nothing_from_elsewhere(self, caller):
        page = caller.get("/docs").body.decode()
        named = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)""", page)
        assert len(named) == 4
        for address in named:
            assert "//" not in address
            assert caller.get(f"/{address}").status == 200
        assert caller.get("/docs/secret.txt").status == 404


def test_a_ranking_says_what_it_left_out(caller, demo):
    candidates = demo.pool.item_ids[1:71]
    reply = caller.post("/v1/rank", {"history": history(demo), "candidates": candidates, "attribute": "genre", "k": 5}).json()
    assert [item["item_id"] for item in reply["items"]] == candidates[:5]
    assert reply["left_out"] == candidates[60:]


class TestBody:
    def test_a_long_body_is_refused_by_its_header_before_it_is_read(self, caller):
        reply = caller.post("/v1/retrieve", b"{}", headers={"content-length": str(10**9)})
        assert_refused(reply, 413, "longer than 524288 bytes")
        assert caller.num_received == 0

    def test_a_long_body_without_a_header_is_read_up_to_its_bound(self, caller):
        small = caller.under(max_body_bytes=2048)
        reply = small.send("POST", "/v1/retrieve", [b"x" * 1000] * 50)
        assert_refused(reply, 413, "longer than 2048 bytes")
        assert small.num_received == 3

    @pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "", "9" * 5000, "١٢"])
    def test_a_length_that_is_none(self, caller, length):
        assert caller.post("/v1/retrieve", b"{}", headers={"content-length": length.encode().decode("latin-1")}).status in (
            400,
            413,
        )

    def test_a_body_in_parts_is_put_together(self, caller, demo):
        raw = json.dumps({"history": history(demo), "k": 3}).encode()
        reply = caller.send("POST", "/v1/retrieve", [raw[i : i + 1] for i in range(len(raw))])
        assert reply.status == 200 and len(reply.json()["items"]) == 3

    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
    def test_what_a_form_can_send_is_not_taken(self, caller, demo, kind):
        reply = caller.post("/v1/retrieve", {"history": history(demo)}, headers={"content-type": kind})
        assert_refused(reply, 415, "must be JSON")

    @pytest.mark.parametrize(
        ("path", "body", "reason"),
        [
            ("/v1/retrieve", {"history": ["x"] * (MAX_HISTORY + 1)}, f"at most {MAX_HISTORY}"),
            ("/v1/retrieve", {"history": ["x" * 513]}, "at most 512 characters"),
            ("/v1/retrieve", {"history": ["x"], "k": 10**40}, "k: "),
            ("/v1/recommend", {"history": ["x"], "k": 51}, "less than or equal to 50"),
            ("/v1/rank", {"history": ["x"], "candidates": ["x"] * (MAX_CANDIDATES + 1), "attribute": "a"}, "candidates: "),
            ("/v1/rank", {"history": ["x"], "candidates": ["x"], "attribute": "a" * 201}, "attribute: "),
            ("/v1/retrieve", {"history": [1] * 9}, "and 4 more"),
        ],
    )
    def test_bounds_are_named_and_what_was_sent_is_not_quoted(self, caller, path, body, reason):
        reply = caller.post(path, body)
        assert_refused(reply, 422, reason)
        assert len(reply.body) < 1000

    @pytest.mark.parametrize("path", ["/v1/retrieve", "/v1/recommend", "/v1/rank"])
    def test_unknown_fields_are_told_while_they_are_few(self, caller, path):
        request = {"history": ["x"], "candidates": ["x"], "attribute": "a"}
        few = {**request, **{f"f{n}": 0 for n in range(MAX_FIELDS - len(request))}}
        assert_refused(caller.post(path, few), 422, "f0: Extra inputs are not permitted; ")
        # Many are one complaint: a complaint for each of tens of thousands would hold up every other request.
        reply = caller.post(path, {**few, "one more": 0})
        assert_refused(reply, 422, "")
        assert reply.json()["detail"] == f"a request has at most {MAX_FIELDS} fields"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/v1/items/no%20item", 404), ("GET", "/v1/retrieve", 405), ("DELETE", "/healthz", 405)],
)
def test_every_error_has_one_shape(caller, method, path, status):
    assert_refused(caller.send(method, path), status, "")


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000, b"null", b'"x"', b"NaN"])
def test_a_body_that_is_no_request(caller, raw):
    reply = caller.post("/v1/retrieve", raw)
    assert reply.status in (400, 422)
    assert_refused(reply, reply.status, "")


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ToolError("K is out of range"), 422, "K is out of range"),
        (LLMUnavailableError("no answer"), 502, "no answer"),
        (RayActorError(), 503, "try again"),
        (BackPressureError(9, 8), 503, "try again"),
        (DeploymentUnavailableError(DeploymentID("backbone", "toolrec")), 503, "try again"),
        (Refusal(418, "inside"), 500, "its log says more"),
        (RuntimeError("a secret of the inside"), 500, "its log says more"),
    ],
)
def test_what_fails_inside_is_told_without_its_inside(caller, demo, answers, error, status, reason):
    class Failing:
        async def remote(self, *_: Any) -> Any:
            raise error

    failing = Failing()
    failing.retrieve = failing  # type: ignore[attr-defined]
    broken = Answers(demo, tools={"none": failing}, rank=failing, description={})
    sent: list[Any] = []
    guarded = caller.over(broken)
    inner = guarded.app

    async def recorded(scope: Any, receive: Any, send: Any) -> None:
        # A server logs what is raised after the answer; the client has the answer.
        try:
            await inner(scope, receive, send)
        except type(error) as raised:
            sent.append(raised)

    guarded.app = recorded
    reply = guarded.post("/v1/retrieve", {"history": history(demo)})
    assert_refused(reply, status, reason)
    assert "a secret of the inside" not in reply.body.decode()
    assert bool(sent) == (status == 500)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=12), inner, max_size=4),
    max_leaves=12,
)


def requests_over(ids: list[str]) -> st.SearchStrategy[Any]:
    """Bodies that are nearly right: known fields, with known and unknown ids, and values of any kind."""
    some_ids = st.lists(st.sampled_from(ids) | st.text(st.characters(), max_size=20), max_size=6) | json_values
    known = {
        "history": st.lists(st.sampled_from(ids), min_size=1, max_size=8) | some_ids,
        "candidates": some_ids,
        "attribute": st.sampled_from(["none", "genre", "colour", "GENRE"]) | st.text(st.characters(), max_size=20) | json_values,
        "k": st.integers(-2, 60) | json_values,
        "mask_seen": st.booleans() | json_values,
    }
    return st.fixed_dictionaries({}, optional=known) | json_values


PATHS = ("/v1/retrieve", "/v1/recommend", "/v1/rank")


@given(data=st.data(), path=st.sampled_from(PATHS))
def test_no_json_crashes_the_door(caller, demo, data, path):
    body = data.draw(requests_over(demo.pool.item_ids[1:20]))
    reply = caller.post(path, json.dumps(body).encode())
    assert reply.status in (200, 400, 422), reply.body
    if reply.status == 200:
        known = set(demo.pool.item_ids[1:])
        assert {item["item_id"] for item in reply.json()["items"]} <= known
    else:
        assert_refused(reply, reply.status, "")


@given(
    path=st.sampled_from((*PATHS, "/v1/items/x", "/healthz", "/v1/attributes")),
    method=st.sampled_from(("POST", "GET", "PUT", "OPTIONS", "BREW")),
    parts=st.lists(st.binary(max_size=200), max_size=4),
    headers=st.dictionaries(
        st.sampled_from(("authorization", "content-length", "content-type", "host", "x-forwarded-for", "transfer-encoding")),
        st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40),
        max_size=3,
    ),
)
def test_no_bytes_crash_the_door(caller, path, method, parts, headers):
    reply = caller.send(method, path, parts, headers=headers)
    assert 200 <= reply.status < 500, reply.body
    assert isinstance(reply.json(), dict)


@given(item_id=st.text(st.characters(), max_size=60))
@example(item_id="\n/")
def test_no_path_crashes_the_door(caller, item_id):
    reply = caller.get(f"/v1/items/{item_id}")
    assert reply.status in (200, 404)
    assert isinstance(reply.json(), dict)
