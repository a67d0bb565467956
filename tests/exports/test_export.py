"""`toolrec export`: tables, fine-tuning data, an inspect_ai log, spans, trackers."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from toolrec.cli import run_command
from toolrec.data import load_dataset
from toolrec.exports.otel import Spans, SpanSender
from toolrec.exports.source import Source, user_split
from toolrec.exports.tables import TABLES
from toolrec.exports.training import accepted_messages
from toolrec.records import Round
from toolrec.runs.run import load_run

ROOT = Path(__file__).resolve().parents[2]


def export(run: Path, out: Path, *flags: str, expect: int = 0) -> Path:
    assert run_command(["export", str(run), "--out", str(out), *flags]) == expect
    return out


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def tables(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(small_run, tmp_path_factory.mktemp("tables") / "out", "--format", "parquet")


class TestTables:
    def test_every_level_says_what_the_run_says(self, tables: Path, small_run: Path):
        run = load_run(small_run)
        users, rounds = pd.read_parquet(tables / "users.parquet"), pd.read_parquet(tables / "rounds.parquet")
        assert users["user_id"].sort_values().tolist() == run.users["user_id"].sort_values().tolist()
        assert len(rounds) == len(run.rounds) and rounds["prompt_tokens"].sum() == run.users["prompt_tokens"].sum()
        calls = pd.read_parquet(tables / "calls.parquet")
        assert len(calls) == run.users["num_tool_calls"].sum() and set(calls["tool"]) <= {"retrieve", "rank"}

    def test_the_users_figures_are_the_summarys(self, tables: Path, small_run: Path):
        users, surrogate = pd.read_parquet(tables / "users.parquet"), load_run(small_run).summary_json["surrogate"]
        assert users["ndcg_at_10"].mean() == pytest.approx(surrogate["ndcg@10"])
        assert users["target_position"].between(1, 10).mean() == pytest.approx(surrogate["recall@10"])

    def test_titles_and_targets_are_those_of_the_data_set(self, tables: Path, demo_folder: Path):
        dataset, lists = load_dataset(demo_folder), pd.read_parquet(tables / "lists.parquet")
        for row in lists.head(30).to_dict("records"):
            target = dataset.target(row["user_index"], "test")
            assert row["title"] == dataset.pool.titles[row["item_index"]] and row["is_target"] == (row["item_index"] == target)

    def test_no_column_is_nested_and_each_has_its_meaning(self, tables: Path):
        written = json.loads((tables / "columns.json").read_text(encoding="utf-8"))
        for name in TABLES:
            schema = pq.read_schema(tables / f"{name}.parquet")
            assert not any(field.type.num_fields for field in schema), name
            assert all(field.metadata[b"description"] for field in schema), name
            assert list(written["tables"][name]["columns"]) == schema.names
        assert written["target_split"] == "test"

    def test_csv_holds_the_same(self, tables: Path, small_run: Path, tmp_path: Path):
        out = export(small_run, tmp_path / "csv", "--format", "csv")
        for name in TABLES:
            read = pd.read_csv(out / f"{name}.csv", keep_default_na=False, na_values={})
            assert len(read) == len(pd.read_parquet(tables / f"{name}.parquet")), name
        texts = pd.read_csv(out / "messages.csv", keep_default_na=False)["content"].tolist()
        assert texts == pd.read_parquet(tables / "messages.parquet")["content"].fillna("").tolist()

    def test_the_guide_documents_every_table_and_column(self):
        guide = (ROOT / "docs" / "guides" / "exports.md").read_text(encoding="utf-8")
        for name, table in TABLES.items():
            assert f"`{name}`" in guide
            missing = [column for column, _, _ in table.columns if f"`{column}`" not in guide]
            assert not missing, (name, missing)

    def test_without_the_data_set_titles_and_targets_are_null(
        self, small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        run = tmp_path / "moved"
        shutil.copytree(small_run, run)
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        manifest["dataset"]["path"] = str(tmp_path / "gone")
        (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        users = pd.read_parquet(export(run, tmp_path / "out", "--format", "parquet") / "users.parquet")
        assert users[["target_index", "target_title", "ndcg_at_10"]].isna().all(axis=None) and len(users)
        assert "without titles and targets" in capsys.readouterr().err
        export(run, tmp_path / "chat", "--format", "chat-jsonl", expect=2)
        assert "give its folder as --dataset" in capsys.readouterr().err and not (tmp_path / "chat").exists()
        dataset = str(load_run(small_run).manifest["dataset"]["path"])
        export(run, tmp_path / "chat", "--format", "chat-jsonl", "--dataset", dataset)


class TestChats:
    def test_only_users_of_the_asked_part_are_in_it(self, small_run: Path, tmp_path: Path):
        ids = set(load_run(small_run).users["user_id"])
        seen = set()
        for part in ("train", "valid", "test"):
            rows = lines_of(export(small_run, tmp_path / part, "--format", "chat-jsonl", "--users", part))
            assert {row["user_id"] for row in rows} == {user for user in ids if user_split(user, 0) == part}
            assert {row["split"] for row in rows} <= {part} and {row["target_split"] for row in rows} <= {"test"}
            seen |= {row["user_id"] for row in rows}
        assert seen == ids
        default = lines_of(export(small_run, tmp_path / "default", "--format", "chat-jsonl"))
        assert default == lines_of(tmp_path / "train")

    def test_the_parts_have_their_shares_and_do_not_depend_on_the_run(self):
        parts = [user_split(f"u{number}", 0) for number in range(4000)]
        assert [round(parts.count(part) / 4000, 1) for part in ("train", "valid", "test")] == [0.8, 0.1, 0.1]
        assert parts != [user_split(f"u{number}", 1) for number in range(4000)]

    def test_a_conversation_is_well_formed_and_holds_no_refused_reply(self, faulty_run: Path, tmp_path: Path):
        rows = lines_of(export(faulty_run, tmp_path / "chat", "--format", "chat-jsonl", "--users", "all"))
        run = load_run(faulty_run)
        finished = set(run.users["user_id"][run.users["is_finished"]])
        assert {row["user_id"] for row in rows} == finished and len(finished) < len(run.users)
        for row in rows:
            roles = [message["role"] for message in row["messages"]]
            assert roles[:2] == ["system", "user"] and roles[-1] == "assistant"
            assert not any("Not accepted" in (message["content"] or "") for message in row["messages"])
            called = [call["id"] for message in row["messages"] for call in message.get("tool_calls") or ()]
            answered = [message["tool_call_id"] for message in row["messages"] if message["role"] == "tool"]
            assert answered == called[: len(answered)] and len(called) - len(answered) <= 1
            assert [tool["function"]["name"] for tool in row["tools"]] == ["retrieve", "rank", "finish"]

    def test_hits_alone_are_the_users_whose_list_has_the_target(self, small_run: Path, tmp_path: Path, tables: Path):
        rows = lines_of(export(small_run, tmp_path / "chat", "--format", "chat-jsonl", "--users", "all", "--keep", "hits"))
        users = pd.read_parquet(tables / "users.parquet")
        assert {row["user_id"] for row in rows} == set(users["user_id"][users["target_position"] > 0])
        assert all(row["ndcg_at_10"] > 0 for row in rows)

    def test_what_answers_an_earlier_reply_stays_when_a_refused_one_goes(self):
        messages = (
            {"role": "tool", "content": "answers the reply of the round before", "tool_call_id": "a"},
            {"role": "assistant", "content": "wrong"},
            {"role": "user", "content": "Not accepted: wrong."},
            {"role": "assistant", "content": "right"},
            {"role": "user", "content": "answer"},
        )
        done = Round(
            number=1, thought="", call=None, observation=None, messages=messages, usage={}, counts={}, duration_s=0.0
        )  # fmt: skip
        assert accepted_messages(done) == (messages[0], messages[3], messages[4])


class TestPairs:
    def test_refused_replies_are_rejected_and_accepted_ones_chosen(self, faulty_run: Path, tmp_path: Path):
        rows = lines_of(export(faulty_run, tmp_path / "dpo", "--format", "dpo-jsonl", "--users", "all", "--pairs", "reask"))
        assert rows and {row["pair"] for row in rows} == {"reask"}
        run = load_run(faulty_run)
        for row in rows:
            said = [message for done in run.trace(row["user_id"]).rounds for message in done.messages]
            [chosen], [rejected] = row["chosen"], row["rejected"]
            assert said.index(rejected) < said.index(chosen) and said[said.index(rejected) + 1]["role"] != "assistant"
            assert row["prompt"][-1]["role"] != "assistant"

    def test_in_hindsight_the_target_comes_first(self, small_run: Path, tmp_path: Path, demo_folder: Path):
        rows = lines_of(export(small_run, tmp_path / "dpo", "--format", "dpo-jsonl", "--users", "all", "--pairs", "hindsight"))
        dataset = load_dataset(demo_folder)
        assert rows
        for row in rows:
            chosen, rejected = (
                json.loads(row[side][0]["tool_calls"][0]["function"]["arguments"])["items"] for side in ("chosen", "rejected")
            )
            target = dataset.pool.item_ids[dataset.target(dataset.user_index_of(row["user_id"]), "test")]
            assert chosen[0] == target and len(chosen) == len(rejected) == 10 and len(set(chosen)) == 10
            assert rejected[0] != target
            assert [item for item in rejected if item != target][:9] == chosen[1:]

    def test_of_two_runs_the_better_trajectory_is_chosen(self, small_run: Path, faulty_run: Path, tmp_path: Path):
        flags = ("--format", "dpo-jsonl", "--users", "all", "--keep", "all", "--pairs", "outcome", "--against")
        rows = lines_of(export(small_run, tmp_path / "dpo", *flags, str(faulty_run)))
        own, other = (
            dict(zip(r.users["user_id"], r.users["final_items"], strict=True)) for r in map(load_run, (small_run, faulty_run))
        )
        assert all(own[row["user_id"]] != other[row["user_id"]] for row in rows)
        same = lines_of(export(small_run, tmp_path / "same", *flags, str(small_run)))
        assert same == []

    @pytest.mark.parametrize("flags", [("--pairs", "wrong"), ("--pairs", ","), ("--users", "nobody")])
    def test_a_wrong_choice_is_refused(self, small_run: Path, tmp_path: Path, flags: tuple[str, ...]):
        export(small_run, tmp_path / "dpo", "--format", "dpo-jsonl", *flags, expect=2)
        assert not list(tmp_path.iterdir())


def test_chats_and_pairs_load_with_datasets(small_run: Path, faulty_run: Path, tmp_path: Path):
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    for kind in ("chat", "dpo"):
        path = export(faulty_run, tmp_path / f"{kind}.jsonl", "--format", f"{kind}-jsonl", "--users", "all")
        loaded = datasets.load_dataset("json", data_files=str(path), cache_dir=str(tmp_path / "cache"), split="train")
        rows = lines_of(path)
        assert len(loaded) == len(rows) > 0
        for column in ("messages",) if kind == "chat" else ("prompt", "chosen", "rejected"):
            read = [[(message["role"], message["content"]) for message in row[column]] for row in loaded]
            assert read == [[(message["role"], message.get("content")) for message in row[column]] for row in rows]


class TestInspect:
    def test_its_own_reader_opens_the_log(self, faulty_run: Path, tmp_path: Path):
        log = pytest.importorskip("inspect_ai.log", reason="inspect_ai is not installed")
        run = load_run(faulty_run)
        for name in ("run.eval", "run.json"):
            read = log.read_eval_log(str(export(faulty_run, tmp_path / name, "--format", "inspect")))
            assert read.status == "success" and len(read.samples) == len(run.users)
            means = {score.name: score.metrics["mean"].value for score in read.results.scores}
            assert means["ndcg@10"] == pytest.approx(run.summary_json["surrogate"]["ndcg@10"])
            for sample in read.samples:
                trace = run.trace(sample.id)
                said = [*trace.opening, *(message for done in trace.rounds for message in done.messages)]
                assert [(m.role, m.text) for m in sample.messages] == [(m["role"], m.get("content") or "") for m in said]
                assert (sample.error is None) == (trace.ended_by in ("finish", "forced_finish"))
        mean = sum(sample.scores["ndcg@10"].value for sample in read.samples) / len(read.samples)
        assert mean == pytest.approx(means["ndcg@10"])
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    def test_another_ending_is_refused(self, small_run: Path, tmp_path: Path):
        export(small_run, tmp_path / "run.log", "--format", "inspect", expect=2)


class Collector(http.server.BaseHTTPRequestHandler):
    """An OTLP/HTTP receiver: keeps the requests, as protobuf decodes them."""

    kept: list[Any]
    status = 200

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        if self.status == 200:
            self.kept.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def collector() -> Iterator[tuple[str, type[Collector]]]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the OTLP exporter is not installed")
    handler = type("Kept", (Collector,), {"kept": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", handler
    server.shutdown()
    server.server_close()


class TestSpans:
    def test_a_collector_gets_every_user_with_rounds_and_tools(self, faulty_run: Path, collector: tuple[str, type[Collector]]):
        url, handler = collector
        assert run_command(["export", str(faulty_run), "--format", "otel", "--otel-endpoint", url, "--follow"]) == 0
        spans = [span for r in handler.kept for resource in r.resource_spans for s in resource.scope_spans for span in s.spans]
        run = load_run(faulty_run)
        by_operation: dict[str, list[dict[str, Any]]] = {}
        for span in spans:
            attributes = {one.key: one.value for one in span.attributes}
            by_operation.setdefault(attributes["gen_ai.operation.name"].string_value, []).append({"span": span, **attributes})
        agents = by_operation["invoke_agent"]
        assert {agent["toolrec.user_id"].string_value for agent in agents} == set(run.users["user_id"])
        assert len(by_operation["execute_tool"]) == run.users["num_tool_calls"].sum()
        tokens = sum(chat["gen_ai.usage.input_tokens"].int_value for chat in by_operation["chat"])
        assert tokens == run.users["prompt_tokens"].sum()
        of_agents = {agent["span"].span_id: agent["span"] for agent in agents}
        for span in spans:
            assert span.start_time_unix_nano <= span.end_time_unix_nano
            parent = of_agents.get(span.parent_span_id, span)
            assert span.trace_id == parent.trace_id and span.end_time_unix_nano <= parent.end_time_unix_nano
        for chat in by_operation["chat"]:
            assert all(message["parts"] for message in json.loads(chat["gen_ai.input.messages"].string_value))
            assert all(message["finish_reason"] for message in json.loads(chat["gen_ai.output.messages"].string_value))

    def test_what_is_sent_again_has_the_same_ids(self, small_run: Path):
        pytest.importorskip("opentelemetry.sdk.trace")
        source = Source(small_run)
        trace = next(source.traces())
        first, second = ([span.context.span_id for span in Spans(Source(small_run)).of(trace)] for _ in range(2))
        assert first == second and len(set(first)) == len(first)

    def test_names_are_those_of_the_conventions(self, small_run: Path):
        conventions = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
        known = {value for name, value in vars(conventions).items() if name.startswith("GEN_AI_") and isinstance(value, str)}
        spans = Spans(Source(small_run)).of(next(Source(small_run).traces()))
        used = {name for span in spans for name in span.attributes if name.startswith("gen_ai.")}
        assert used <= known and {"gen_ai.input.messages", "gen_ai.tool.call.result", "gen_ai.agent.name"} <= used

    def test_the_file_is_otlp_json_with_ids_in_hexadecimal(self, small_run: Path, tmp_path: Path):
        pytest.importorskip("opentelemetry.exporter.otlp.proto.common", reason="the OTLP exporter is not installed")
        rows = lines_of(export(small_run, tmp_path / "spans.jsonl", "--format", "otel"))
        assert len(rows) == len(load_run(small_run).users)
        for row in rows:
            for span in row["resourceSpans"][0]["scopeSpans"][0]["spans"]:
                assert len(bytes.fromhex(span["traceId"])) == 16 and len(bytes.fromhex(span["spanId"])) == 8

    def test_a_collector_that_refuses_is_an_error(
        self, small_run: Path, collector: tuple[str, type[Collector]], capsys: pytest.CaptureFixture[str]
    ):
        url, handler = collector
        handler.status = 400
        assert run_command(["export", str(small_run), "--format", "otel", "--otel-endpoint", url]) == 2
        assert "took no spans" in capsys.readouterr().err

    def test_an_address_that_is_none_is_refused(self):
        from toolrec.errors import ConfigError

        with pytest.raises(ConfigError, match="HTTP address"):
            SpanSender("127.0.0.1:4318")


class TestPush:
    def test_mlflow_has_figures_settings_and_report(self, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
        monkeypatch.chdir(tmp_path)
        assert run_command(["export", str(small_run), "--push", "mlflow", "--project", "trial"]) == 0
        [run] = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_runs(
            [mlflow.get_experiment_by_name("trial").experiment_id]
        )
        summary = load_run(small_run).summary_json
        assert run.data.metrics["surrogate/ndcg_at_10"] == pytest.approx(summary["surrogate"]["ndcg@10"])
        assert run.data.params["llm.model"] == "toolrec-rules-1"
        stored = {item.path for item in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
        assert stored == {"summary.json", "report.html"}

    def test_wandb_has_figures_and_settings_offline(self, small_run: Path, tmp_path: Path):
        pytest.importorskip("wandb", reason="wandb is not installed")
        environment = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "toolrec", "export", str(small_run), "--push", "wandb"]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env={**__import__("os").environ, **environment}
        )
        assert done.returncode == 0 and "offline-run" in done.stdout, done.stderr
        [stored] = tmp_path.rglob("run-*.wandb")
        content = stored.read_bytes()
        assert b"surrogate/ndcg_at_10" in content and b"report.html" in content

    def test_a_tracker_that_is_not_installed_says_how_to_install_it(
        self, small_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        monkeypatch.setitem(sys.modules, "wandb", None)
        assert run_command(["export", str(small_run), "--push", "wandb"]) == 2
        assert "pip install wandb" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ((), "nothing to export"),
        (("--format", "csv", "--otel-endpoint", "http://127.0.0.1:1"), "goes with --format otel"),
        (("--format", "otel", "--follow"), "needs --otel-endpoint"),
        (("--format", "csv", "--against", "x"), "goes with --format dpo-jsonl"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    small_run: Path, flags: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
):
    assert run_command(["export", str(small_run), *flags]) == 2
    assert reason in capsys.readouterr().err


def test_nothing_that_is_there_is_overwritten(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    export(small_run, tmp_path, "--format", "parquet", expect=2)
    assert "something is already there" in capsys.readouterr().err
