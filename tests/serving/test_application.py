"""The Serve application over real HTTP, and the checks before anything is deployed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import requests
from support import ROOT

from toolrec.data import Dataset
from toolrec.errors import CheckpointError, ConfigError
from toolrec.recommenders import load_recommenders
from toolrec.tools.remote import describe_application


@pytest.fixture
def url(shared_application: str, serve_url: str) -> str:
    """The shared application behind the session's HTTP proxy."""
    return f"{serve_url}/{shared_application}"


def post(url: str, path: str, **body: Any) -> requests.Response:
    return requests.post(f"{url}{path}", json=body, timeout=90)


def history_of(demo: Dataset, user_index: int) -> list[str]:
    return [demo.pool.item_ids[item] for item in demo.history(user_index, "test")]


def test_every_tool_gives_the_list_of_its_recommender(url: str, demo: Dataset, demo_folder: Path, demo_recommenders: Path):
    recommenders = load_recommenders(demo_recommenders, demo)
    for attribute, member in (("none", "backbone"), ("genre", "genre"), ("release_year", "release_year"), ("mood", "mood")):
        reply = post(url, "/v1/retrieve", history=history_of(demo, 5), attribute=attribute, k=7).json()
        expected = recommenders[member].recommend(demo.history(5, "test"), k=7)
        assert [item["item_id"] for item in reply["items"]] == [demo.pool.item_ids[item.item_index] for item in expected]
        assert [item["score"] for item in reply["items"]] == [item.score for item in expected]
        assert [item["position"] for item in reply["items"]] == [1, 2, 3, 4, 5, 6, 7]


def test_seen_items_come_back_only_when_asked_for(url: str, demo: Dataset):
    history = history_of(demo, 5)
    masked = post(url, "/v1/retrieve", history=history, k=50).json()["items"]
    assert not {item["item_id"] for item in masked} & set(history)
    unmasked = post(url, "/v1/retrieve", history=history, k=50, mask_seen=False).json()["items"]
    assert {item["item_id"] for item in unmasked} & set(history)


def test_recommend_fuses_the_tools_without_an_llm(url: str, demo: Dataset):
    reply = post(url, "/v1/recommend", history=history_of(demo, 5), k=10).json()
    assert reply["tool"] == "fusion"
    assert len({item["item_id"] for item in reply["items"]}) == 10
    scores = [item["score"] for item in reply["items"]]
    assert scores == sorted(scores, reverse=True)


def test_rank_orders_the_given_candidates_and_adds_none(url: str, demo: Dataset):
    candidates = [demo.pool.item_ids[item] for item in range(1, 60) if item not in demo.history(5, "test")][:12]
    response = post(url, "/v1/rank", history=history_of(demo, 5), candidates=candidates, attribute="genre", k=5)
    assert response.status_code == 200, response.text
    reply = response.json()
    assert reply["tool"] == "Rank[genre]"
    assert len(reply["items"]) == 5
    assert {item["item_id"] for item in reply["items"]} <= set(candidates)


def test_items_attributes_health_and_the_openapi_page(url: str, demo: Dataset):
    item = requests.get(f"{url}/v1/items/{demo.pool.item_ids[3]}", timeout=90).json()
    assert item["title"] == demo.pool.titles[3]
    named = requests.get(f"{url}/v1/attributes", timeout=90).json()
    assert [a["name"] for a in named["attributes"]] == ["genre", "release_year", "mood"]
    health = requests.get(f"{url}/healthz", timeout=90).json()
    assert health["status"] == "ok" and health["dataset_checksum"] == demo.checksum
    assert "/v1/retrieve" in requests.get(f"{url}/openapi.json", timeout=90).json()["paths"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"history": ["no such item"]}, "no item in the pool"),
        ({"history": []}, "at least 1"),
        ({"history": "x"}, "valid list"),
        ({"history": ["1"], "k": 0}, "greater than or equal to 1"),
        ({"history": ["1"], "k": 51}, "less than or equal to 50"),
        ({"history": ["1"], "attribute": "colour"}, "unknown attribute: colour; known: none, genre, release_year, mood"),
        ({"history": ["1"], "colour": "red"}, "Extra inputs"),
        ({}, "Field required"),
    ],
)
def test_a_bad_request_is_answered_with_the_reason(url: str, demo: Dataset, body: dict[str, Any], reason: str):
    body = {**body, "history": [demo.pool.item_ids[1]]} if body.get("history") == ["1"] else body
    response = post(url, "/v1/retrieve", **body)
    assert response.status_code == 422
    assert reason in response.text


@pytest.mark.parametrize(
    ("request_options", "status", "reason"),
    [
        ({"headers": {"X-Forwarded-For": "192.0.2.7"}}, 403, "only this machine is answered"),
        ({"headers": {"Host": "tools.example"}}, 403, "only this machine is answered"),
        ({"data": "{}", "headers": {"Content-Type": "text/plain"}}, 415, "must be JSON"),
        ({"data": b"x" * 600_000, "headers": {"Content-Type": "application/json"}}, 413, "longer than 524288 bytes"),
        ({"data": iter([b"x" * 60_000] * 12), "headers": {"Content-Type": "application/json"}}, 413, "longer than 524288 bytes"),
        ({"data": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, 400, ""),
    ],
)
def test_the_guard_stands_before_the_served_door(url: str, request_options: dict[str, Any], status: int, reason: str):
    response = requests.post(f"{url}/v1/retrieve", timeout=90, **request_options)
    assert response.status_code == status, response.text
    assert list(response.json()) == ["detail"] and reason in response.json()["detail"]


def test_an_unknown_item_is_not_found(url: str):
    assert requests.get(f"{url}/v1/items/nothing", timeout=90).status_code == 404


def test_the_application_says_what_it_serves(shared_application: str, demo: Dataset):
    served = describe_application(shared_application)
    assert served.dataset_checksum == demo.checksum
    assert list(served.deployments) == ["none", "genre", "release_year", "mood"]


def test_an_application_that_is_not_there_is_named(url: str):
    with pytest.raises(ConfigError, match=r"no tools are served.*got: elsewhere"):
        describe_application("elsewhere")


def test_beyond_this_machine_it_starts_with_a_token_only(demo_folder: Path, demo_recommenders: Path):
    script = Path(__file__).with_name("served_openly.py")
    process = subprocess.run(
        [sys.executable, str(script), str(demo_folder), str(demo_recommenders)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TOOLREC_TEST_TOKEN": "a-token-of-this-very-test"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    outcomes = [line for line in process.stdout.splitlines() if line.startswith(("refused: ", "started: "))]
    assert outcomes[0].startswith("refused: {}")
    assert outcomes[1:] == ["started: {'token_env': 'TOOLREC_TEST_TOKEN'}", "started: {'is_routed': False}"]
    assert "needs a bearer token" in process.stdout and "a-token-of-this-very-test" not in process.stdout + process.stderr


class TestBeforeDeployment:
    """What is wrong is said before Serve is asked for anything."""

    def test_an_attribute_that_was_not_trained(self, demo_folder: Path, demo_recommenders: Path):
        from toolrec.serving.app import AppConfig, build_app

        config = AppConfig(dataset=str(demo_folder), recommenders=str(demo_recommenders), attributes="genre, colour")
        with pytest.raises(ConfigError, match="got: colour; allowed: genre, release_year, mood"):
            build_app(config)

    def test_a_token_that_is_too_short_is_one_sentence_of_serve_run(
        self, demo_folder: Path, demo_recommenders: Path, monkeypatch: pytest.MonkeyPatch
    ):
        from ray.serve import scripts

        from toolrec.serving.app import AppConfig, build_app

        monkeypatch.setenv("TOOLREC_TEST_TOKEN", "short")
        config = AppConfig(dataset=str(demo_folder), recommenders=str(demo_recommenders), token_env="TOOLREC_TEST_TOKEN")
        with pytest.raises(ConfigError, match="TOOLREC_TEST_TOKEN holds no usable token"):
            build_app(config)
        with click.Context(scripts.cli), pytest.raises(SystemExit, match=r"^Error: .*TOOLREC_TEST_TOKEN holds no usable token"):
            build_app(config)

    def test_the_command_lines_words_become_its_arguments(self, demo_folder: Path, demo_recommenders: Path):
        from ray.serve._private.api import call_user_app_builder_with_args_if_necessary

        from toolrec.serving.app import build_app

        words = {"dataset": str(demo_folder), "recommenders": str(demo_recommenders), "attributes": "genre, mood"}
        application = call_user_app_builder_with_args_if_necessary(build_app, words)
        assert application._bound_deployment.name == "ingress"

    def test_a_folder_without_recommenders(self, demo_folder: Path, tmp_path: Path):
        from toolrec.serving.app import AppConfig, build_app

        with pytest.raises(CheckpointError):
            build_app(AppConfig(dataset=str(demo_folder), recommenders=str(tmp_path)))

    @pytest.mark.parametrize(
        "options",
        [
            {"tools": {"num_replicas": 0}},
            {"tools": {"min_replicas": 3, "max_replicas": 2}},
            {"device": "tpu"},
            {"llm_url": "http://127.0.0.1:1/v1"},
            {"replicas": 3},
            {"token_env": "sk-marker-0123456789"},
            {"llm_key_env": "sk-marker-0123456789"},
            {"max_body_bytes": 0},
            {"requests_per_minute": 0},
            {"requests_per_minute": "inf"},
            {"request_burst": 0},
        ],
    )
    def test_options_out_of_range(self, options: dict[str, Any]):
        from toolrec.serving.app import AppConfig

        with pytest.raises(ConfigError) as caught:
            AppConfig(dataset="d", recommenders="r", **options)
        assert "sk-marker" not in str(caught.value)
