import pytest
from starlette.testclient import TestClient

from toolrec.report import server
from toolrec.report.server import build_app
from toolrec.runs.folder import RunFolder, read_manifest
from toolrec.runs.rows import trace_rows


def client_of(app, host="127.0.0.1"):
    return TestClient(app, base_url=f"http://{host}", raise_server_exceptions=True)


@pytest.fixture
def client(run):
    return client_of(build_app([run]))


def test_the_served_page_asks_its_own_server_only(client):
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert answer.status_code == 200 and "connect-src 'self'" in policy and "unsafe" not in policy
    assert 'id="part:' not in answer.text


def test_parts_are_those_of_a_written_page(client):
    [run] = client.get("/data/runs").json()["runs"]
    assert (run["name"], run["status"], run["num_users"]) == ("first", "complete", 4)
    users = client.get("/data/run/0/users").json()
    block = client.get(f"/data/run/0/block/{users['blocks'][0]}").json()
    assert block["users"]["1"]["rounds"][0]["items"] == [9, 1, 5]
    assert client.get("/data/run/0/overview").json()["tables"]


def test_all_messages_can_be_asked_for(client):
    parts = client.get("/data/run/0/messages/1").json()
    assert [part["round"] for part in parts] == [0, 1, 2, 3]
    assert parts[0]["messages"][0]["content"].startswith("You are a user.")


def test_what_is_not_there_is_said(client):
    for path in ("run/1/overview", "run/0/block/7-9", "run/0/messages/99"):
        answer = client.get(f"/data/{path}")
        assert answer.status_code == 404 and answer.json()["error"], path


def test_another_name_for_this_machine_is_refused(run):
    assert client_of(build_app([run]), host="evil.example").get("/data/runs").status_code == 400


def test_a_run_that_goes_on_is_followed(tmp_path, written, hand_traces, monkeypatch):
    monkeypatch.setattr(server, "LIVE_S", 0.0)
    path = written(tmp_path / "run", hand_traces()[:1], is_complete=False)
    client = client_of(build_app([path]))
    assert client.get("/data/runs").json()["runs"][0]["status"] == "interrupted"
    driver = RunFolder.resume(path, read_manifest(path))
    try:
        assert client.get("/data/runs").json()["runs"][0]["status"] == "running"
        user, rounds = trace_rows(hand_traces()[1])
        driver.commit([user], rounds)
        driver.journal([{"user_index": 3, "attempt": 1, "round": 1, "purpose": "decide", "tool": "none", "prompt_tokens": 50}])
        assert client.get("/data/run/0/users").json()["columns"]["id"] == ["u1", "u2"]
        progress = client.get("/data/run/0/overview").json()["progress"]
        assert (progress["done"], progress["tokens"]) == (2, 50)
    finally:
        driver.close()
