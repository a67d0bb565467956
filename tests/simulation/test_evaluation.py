"""The main job, whole: real Ray, real Serve, the embedded endpoint over HTTP, the run folder on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import Evaluate, lists_of, same, start_cli, summary_of

from toolrec.cli import run_command
from toolrec.data import Dataset
from toolrec.runs.folder import read_manifest, read_users


class TestEveryone:
    """All users with the defaults."""

    def test_no_user_is_lost(self, everyone: Path, demo: Dataset):
        assert read_users(everyone)["user_index"].tolist() == list(range(1, demo.num_users + 1))
        counts = summary_of(everyone)["counts"]
        assert counts["users"] == demo.num_users
        assert counts["ended_by"] == {"finish": demo.num_users}

    def test_the_summary_has_a_row_for_each_recommender_and_the_speed(self, everyone: Path):
        summary = summary_of(everyone)
        rows = ["surrogate", "surrogate_completed", "backbone", "popularity", "fusion"]
        rows += [f"attribute:{name}" for name in ("genre", "release_year", "mood")]
        for row in rows:
            assert 0 <= summary[row]["ndcg@10"] <= summary[row]["recall@10"] <= 1
        assert summary["users_per_s"] > 0
        assert summary["surrogate"]["label"] == "surrogate (embedded rules, not an LLM)"
        assert summary["surrogate"]["recall@20"] is None

    def test_its_manifest_repeats_it(self, everyone: Path, demo: Dataset, tmp_path: Path, local_ray: None):
        repeat = ["evaluate", "--config", str(everyone / "manifest.json"), "--run", str(tmp_path / "again")]
        assert run_command([*repeat, "--tools", "local"]) == 0
        same(tmp_path / "again", everyone)
        assert read_manifest(tmp_path / "again")["resume_key"] == read_manifest(everyone)["resume_key"]

    def test_the_folder_says_all_that_is_needed_to_repeat_the_run(self, everyone: Path, demo: Dataset):
        manifest = read_manifest(everyone)
        assert manifest["settings"]["dataset_checksum"] == demo.checksum
        assert manifest["settings"]["llm.model"] == "toolrec-rules-1"
        assert manifest["prompts"] and manifest["versions"]["ray"]
        assert (everyone / "report.html").stat().st_size > 10_000
        for name in ("users", "rounds"):
            assert list((everyone / name).glob("part-*.parquet"))

    def test_users_use_tools_before_they_finish(self, everyone: Path):
        behaviour = summary_of(everyone)["behaviour"]
        assert behaviour["llm_calls"]["mean"] >= 4
        assert behaviour["tool_calls"]["mean"] >= 3

    def test_every_list_holds_items_of_the_pool_that_the_user_has_not_seen(self, everyone: Path, demo: Dataset):
        users = read_users(everyone)
        assert len(users) == demo.num_users
        for user in users.itertuples():
            final = [item for item in user.final_items if item]
            assert len(set(final)) == len(final) == 10
            assert all(1 <= item <= demo.num_items for item in final)
            assert not set(final) & set(demo.history(user.user_index, "test").tolist())

    def test_one_trace_is_shown_readably(self, everyone: Path, demo: Dataset, capsys: pytest.CaptureFixture[str]):
        assert run_command(["show", str(everyone), "--user", demo.user_ids[3]]) == 0
        shown = capsys.readouterr().out
        assert "Retrieve[none]" in shown and "finish" in shown.lower()


@pytest.fixture(scope="module")
def forty(evaluate: Evaluate) -> Path:
    """The run of 40 users, 64 at once over two actors, with served tools."""
    return evaluate("--users", "40", "--concurrency", "64", "--actors", "2")


class TestDeterminism:
    """The same lists and texts whatever the schedule."""

    def test_one_user_at_a_time_gives_what_64_at_once_give(self, evaluate: Evaluate, forty: Path):
        same(evaluate("--users", "40", "--concurrency", "1"), forty)

    def test_tools_in_the_process_give_what_served_ones_give(self, evaluate: Evaluate, forty: Path):
        same(evaluate("--users", "40", "--tools", "local"), forty)

    def test_a_sample_is_part_of_the_larger_one(self, forty: Path, everyone: Path):
        some, whole = lists_of(forty), lists_of(everyone)
        assert len(some) == 40
        kept = whole[whole["user_index"].isin(some["user_index"])]
        assert some.to_dict("records") == kept.to_dict("records")


class TestProtocols:
    """Both ways of saying an action."""

    def test_the_text_form_comes_to_the_same_lists(self, evaluate: Evaluate, forty: Path):
        text = evaluate("--users", "40", "--protocol", "text")
        assert lists_of(forty)["final_items"].tolist() == lists_of(text)["final_items"].tolist()

    def test_a_final_ranking_makes_the_list_when_asked(self, evaluate: Evaluate):
        run = evaluate("--users", "10", "--finish-policy", "final_rank")
        assert summary_of(run)["tokens"]["final_rank"]["num_calls"] == 10

    def test_no_round_left_forces_the_finish(self, evaluate: Evaluate):
        run = evaluate("--users", "10", "--rounds", "1")
        assert summary_of(run)["counts"]["ended_by"] == {"forced_finish": 10}


def test_two_runs_at_the_same_time_do_not_meet(
    evaluate: Evaluate, demo_folder: Path, demo_recommenders: Path, ray_address: str, tmp_path: Path
):
    flags = ["--users", "30", "--attributes", "genre"]
    alone = evaluate(*flags)
    where = ["--recommenders", str(demo_recommenders), "--run", str(tmp_path / "one"), "--address", ray_address]
    process = start_cli("evaluate", str(demo_folder), *where, *flags, "--tools", "deploy", "--actors", "1")
    assert process.stdout is not None
    for line in process.stdout:
        if "tools: deploy" in line:  # from here on both deploy, simulate and take down
            break
    two = evaluate(*flags, "--tools", "deploy")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    same(tmp_path / "one", alone)
    same(two, alone)


def test_targets_change_figures_and_nothing_else(evaluate: Evaluate, demo: Dataset, tmp_path: Path):
    """Test targets permuted among users, everything made anew from there: data set, recommenders, traces."""
    items = demo.items.copy()
    last = demo.offsets[2:] - 1
    swapped = 0
    for one, other in zip(last[::2].tolist(), last[1::2].tolist(), strict=False):
        left, right = items[one], items[other]
        owner, partner = [int((demo.offsets[1:] > place).argmax()) for place in (one, other)]
        clash = right in demo.history(owner, "test") or left in demo.history(partner, "test")
        if not clash and left != right:
            items[one], items[other] = right, left
            swapped += 1
    assert swapped > demo.num_users // 4
    source = write_recbole(demo, items, tmp_path / "permuted")
    unchanged = write_recbole(demo, demo.items, tmp_path / "unchanged")
    runs = [evaluate_from_source(evaluate, folder) for folder in (source, unchanged)]
    same(*runs)
    figures = [summary_of(run)["surrogate_completed"] for run in runs]
    assert figures[0] != figures[1]


def write_recbole(demo: Dataset, items, folder: Path) -> Path:
    """The data set as atomic files, with the given items in place of its own."""
    folder.mkdir()
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(1, demo.num_users + 1):
        for place in range(demo.offsets[user], demo.offsets[user + 1]):
            lines.append(f"{demo.user_ids[user]}\t{demo.pool.item_ids[items[place]]}\t{place}")
    (folder / "set.inter").write_text("\n".join(lines) + "\n")
    rows = ["item_id:token\ttitle:token_seq\tgenre:token_seq"]
    for item in range(1, demo.num_items + 1):
        rows.append(f"{demo.pool.item_ids[item]}\t{demo.pool.titles[item]}\t{'|'.join(demo.pool.values('genre', item))}")
    (folder / "set.item").write_text("\n".join(rows) + "\n")
    return folder


def evaluate_from_source(evaluate: Evaluate, source: Path) -> Path:
    """Prepare, train, evaluate; gives the run folder."""
    base = source.parent / f"{source.name}-made"
    data, recommenders = base / "data", base / "recommenders"
    assert run_command(["data", "prepare", "recbole", "--source", str(source), "--name", "set", "--out", str(data)]) == 0
    assert run_command(["train", str(data), "--out", str(recommenders), "--epochs", "2", "--no-fusions"]) == 0
    return evaluate("--tools", "local", dataset=data, recommenders=recommenders)


def test_the_run_stands_beside_others_and_is_not_overwritten(evaluate: Evaluate, everyone: Path, capsys: pytest.CaptureFixture):
    before = json.dumps(summary_of(everyone))
    evaluate(run_folder=everyone, expect=2)
    assert "the run folder is there already" in capsys.readouterr().err
    assert json.dumps(summary_of(everyone)) == before


def test_own_parts_take_part(evaluate: Evaluate):
    parts = ["--baseline", "examples.own_parts:last_year_first", "--strategy", "examples.own_parts:OneLook"]
    run = evaluate("--users", "10", *parts, "--rank-tool", "examples.own_parts:AlphabeticalRank")
    summary = summary_of(run)
    assert summary["counts"]["ended_by"] == {"forced_finish": 10}
    assert 0 <= summary["own:newest_first"]["ndcg@10"] <= 1
    assert read_manifest(run)["settings"]["strategy"] == "examples.own_parts:OneLook"
