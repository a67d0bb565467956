from copy import copy
from typing import get_args

import numpy as np
import pytest

from toolrec.errors import ConfigError, RunFolderError
from toolrec.llm.prices import Price
from toolrec.report.compare import compare_json, refuse_other_users
from toolrec.report.fates import Fate, FateKind
from toolrec.report.overview import overview_json
from toolrec.report.page import as_json
from toolrec.report.source import TEXT_LENGTH, RunSource
from toolrec.runs.run import load_run


def test_users_with_what_became_of_their_targets(source):
    users = source.users_json()
    columns = users["columns"]
    assert columns["id"] == ["u1", "u2", "u3", "u4"]
    assert columns["position"] == [2, 0, 0, 0]
    assert columns["fate"] == ["hit", "left_out", "not_brought", "failed"]
    assert columns["where"] == ["", "left out at the end, round 2", "no tool brought it", "user failed, round 1"]
    assert "at" not in columns, "only where users have several targets"
    assert columns["reasks"] == [1, 0, 0, 0]
    assert columns["tokens"] == [3 * 110, 2 * 110, 2 * 110, 110]
    assert columns["usd"] == [None] * 4
    # Popularity gives items 1, 2, 3, … to everyone, and user u's target is item u.
    assert users["others"] == {"backbone": [1, 2, 3, 4], "fusion": [1, 2, 3, 4]}
    assert users["groups"]["history_length"] == [4, 4, 4, 4]
    assert [[users["attributes"][number] for number in of] for of in columns["attributes"]][1] == ["genre"]


@pytest.mark.parametrize("kind", get_args(FateKind))
def test_table_and_trajectory_say_the_same_of_every_cause(source, kind):
    source.fates = [[Fate(kind=kind, round=1, mark="Retrieve[none]", brought_round=1, position=14)]] * 4
    columns = source.users_json()["columns"]
    [target] = source.block_json(columns["block"][0])["users"]["1"]["targets"]
    assert target["where"] == columns["where"][0]
    assert (target["where"] == "") == (kind == "hit")
    assert bool(target["badge"]) == ("round 1" in target["where"])


def test_a_trace_has_all_that_is_shown(source):
    users = source.users_json()
    block = source.block_json(users["columns"]["block"][0])
    trace = block["users"]["1"]
    assert trace["history"] == [30, 29, 28, 27] and trace["ratings"] == [5, 4, 3, 2]
    assert (trace["final"], trace["beside"]["backbone"][:3]) == ([9, 1], [1, 2, 3])
    [target] = trace["targets"]
    assert target == {
        "item": 1, "position": 2, "others": {"backbone": 1, "fusion": 1}, "fate": "hit", "where": "", "why": "",
        "round": 1, "badge": "", "by": "Retrieve[none]", "brought_round": 1, "best": 1,
    }  # fmt: skip
    first, second, _ = trace["rounds"]
    assert (first["mark"], first["items"], first["prompt"], first["reply"]) == ("Retrieve[none]", [9, 1, 5], 100, 10)
    assert second["reasons"][0].startswith("Not accepted")
    assert len(second["thought"]) < TEXT_LENGTH + 100 and "980,000 characters more" in second["thought"]
    named = {30, 29, 28, 27, 1, 9, 5, *range(1, 21)}
    assert {int(item) for item in block["items"]} >= named
    assert all(len(title) < 400 for _, title in block["items"].values())


def test_dollars_by_round_and_user(source):
    source.run.price = Price(model="m", input_usd=2.0, cached_input_usd=1.0, output_usd=4.0, checked="", source="")
    a_round = (100 * 2 + 10 * 4) / 1e6
    users = source.users_json()
    assert users["columns"]["usd"] == pytest.approx([3 * a_round, 2 * a_round, 2 * a_round, a_round], rel=1e-3)
    trace = source.block_json(users["columns"]["block"][0])["users"]["2"]
    assert [done["usd"] for done in trace["rounds"]] == pytest.approx([a_round] * 2, rel=1e-3)


def test_the_overview_has_every_figure_and_says_what_was_run(source):
    overview = overview_json(source)
    summary = source.summary
    assert overview["status"] == "complete" and overview["version"] == "1.2.3"
    [figures] = [table for table in overview["tables"] if table["id"] == "figures"]
    assert [row["name"] for row in figures["rows"]] == [summary[name]["label"] for name in overview["labels"]]
    shown = {row["name"]: row["cells"][1][0].rstrip("*") for row in figures["rows"]}
    assert shown["backbone"] == f"{summary['backbone']['ndcg@10']:.4f}"
    assert {"differences", "depths", "finished", "group-target_count", "beyond", "tools"} <= {t["id"] for t in overview["tables"]}
    assert any("the backbone in NDCG@10" in text and "80% of the time" in text for text in overview["verdicts"])
    assert any("never sees the target" in text for text in overview["protocol_words"])
    charts = overview["charts"]
    # One of four targets was in no tool's list; all others came in round 1.
    assert [point["share"] for point in charts["found"]] == [3 / 4] * 3
    assert charts["fates"] == {"hit": 1, "left_out": 1, "not_brought": 1, "failed": 1}
    assert charts["failures"] == [{"kind": "unavailable", "num": 1}]
    by_rounds = {(point["row"], point["x"]): point["num"] for point in charts["by_rounds"]}
    assert by_rounds["surrogate", 2] == 2 and by_rounds["backbone", 1] == 1


def test_a_run_without_figures_has_users_and_progress(tmp_path, written, hand_traces, dataset):
    run = written(tmp_path / "run", hand_traces()[:2], is_complete=False)
    source = RunSource(load_run(run), dataset=dataset)
    overview = overview_json(source)
    assert overview["status"] == "interrupted" and "tables" not in overview
    assert (overview["progress"]["done"], overview["progress"]["planned"]) == (2, 4)
    assert source.users_json()["others"] == {}
    assert source.users_json()["columns"]["fate"] == ["hit", "left_out"]


def test_a_run_without_users_or_data_set(tmp_path, written):
    source = RunSource(load_run(written(tmp_path / "run", [], is_complete=False)))
    assert source.warnings and source.users_json()["num"] == 0
    assert overview_json(source)["progress"]["done"] == 0


def test_a_run_without_its_data_set_shows_item_numbers(run):
    source = RunSource(load_run(run))
    users = source.users_json()
    assert "without titles" in source.warnings[0]
    assert users["columns"]["position"] is None and "fate" not in users["columns"]
    block = source.block_json(users["blocks"][0])
    assert block["items"] == {} and block["users"]["1"]["rounds"][0]["items"] == [9, 1, 5]


def test_only_blocks_of_the_run_are_read(source):
    with pytest.raises(RunFolderError, match="no such block"):
        source.block_json("../../etc")


def test_runs_are_compared_user_by_user(tmp_path, run, source, written, hand_traces, dataset):
    others = hand_traces()
    # Now user 2 hits at position 2 as well; user 4 is not in this run.
    changed = [others[0], type(others[1])(**{**_fields(others[1]), "final_items": (7, 2), "completed_items": (7, 2)}), others[2]]
    other = RunSource(load_run(written(tmp_path / "other", changed, **{"surrogate.rounds": 9})), dataset=dataset)
    compared = compare_json([source, other])
    assert compared["num_common"] == 3
    [row] = [row for row in compared["rows"] if row["metric"] == "recall@10"]
    assert row["mean"] == pytest.approx(1 / 3) and (row["better"], row["worse"]) == (1, 0)
    assert row["low"] <= 0 < row["high"] and row["p_holm"] == row["p"] == 1
    assert compared["settings"] == [{"name": "surrogate.rounds", "values": ["5", "9"]}]
    assert compared["runs"][0]["figures"]["recall@10"][0] == pytest.approx(1 / 3)


def _fields(trace):
    return {name: getattr(trace, name) for name in trace.__dataclass_fields__}


def test_runs_over_other_data_are_not_compared(tmp_path, source, written):
    other = RunSource(load_run(written(tmp_path / "other", [], is_complete=False, dataset_checksum="another")))
    with pytest.raises(ConfigError, match="another data set"):
        refuse_other_users([source, other])


@pytest.fixture
def several(run, dataset):
    """The same run, with a second target for every user but the fourth; the first user's is in its history."""
    copied = copy(dataset)
    copied.all_targets = lambda split: np.array([[0, 0, 0], [1, 0, 30], [2, 8, 0], [3, 12, 0], [4, 0, 0]], dtype=np.int32)
    return RunSource(load_run(run), dataset=copied)


def test_each_of_several_targets_has_its_position_and_its_fate(several):
    columns = several.users_json()["columns"]
    assert several.warnings == []
    assert columns["at"] == [[2, 0], [0, 3], [0, 2], [0]]
    assert columns["fates"] == [["hit", "masked"], ["left_out", "hit"], ["not_brought", "hit"], ["failed"]]
    # A user counts by the target that came nearest to a hit, and at the best position.
    assert columns["position"] == [2, 3, 2, 0]
    assert columns["fate"] == ["hit", "hit", "hit", "failed"]
    second = several.block_json(columns["block"][1])["users"]["2"]
    assert [(target["item"], target["fate"], target["position"]) for target in second["targets"]] == [
        (2, "left_out", 0), (8, "hit", 3),
    ]  # fmt: skip
    assert second["targets"][0]["others"]["backbone"] == 2 and second["targets"][1]["others"]["backbone"] == 8


def test_charts_comparisons_and_words_are_about_all_targets(several):
    overview = overview_json(several)
    assert overview["charts"]["fates"] == {"hit": 3, "left_out": 1, "masked": 1, "not_brought": 1, "failed": 1}
    # Of seven targets, one was in no list and one is in the history.
    assert overview["charts"]["found"][0]["share"] == pytest.approx(5 / 7)
    assert "up to 3 targets" in overview["protocol_words"][0]
    compared = compare_json([several, several])
    assert compared["runs"][0]["figures"]["recall@10"][0] == pytest.approx((1 / 2 + 1 / 2 + 1 / 2 + 0) / 4)


def test_a_block_is_found_by_the_key_that_it_had_before_it_grew(source):
    [key] = source.blocks
    assert key == "1-4"
    assert set(source.block_json("1-2")["users"]) == {"1", "2"}
    for other in ("2-3", "1-5", "1-x", "0-1"):
        with pytest.raises(RunFolderError, match="no such block"):
            source.block_json(other)


def test_a_rating_that_is_missing_is_none(run, dataset):
    some = copy(dataset)
    some.ratings = np.array([5, np.nan, 3, 2, 1] * 4, dtype=np.float32)
    source = RunSource(load_run(run), dataset=some)
    block = source.block_json(source.users_json()["columns"]["block"][0])
    assert block["users"]["1"]["ratings"] == [5, None, 3, 2]
    assert as_json(block)


def test_groups_that_have_names_are_shown_by_them_and_can_be_filtered_by(source):
    """Nobody has more than three items in training, and no target is among them."""
    overview, users = overview_json(source), source.users_json()
    [table] = [table for table in overview["tables"] if table["id"] == "group-cold_items"]
    assert [row["name"] for row in table["rows"]] == ["never (cold items)"]
    assert "Three groups" not in table["caption"]
    assert table["rows"][0]["query"] == {"group": "cold_items:0"}
    for grouping in overview["groupings"]:
        assert len(users["groups"][grouping]) == 4
    assert overview["groupings"]["cold_users"]["groups"] == [[1, 1, "1 to 4"]]
    assert users["groups"]["cold_users"] == [1, 1, 1, 1]


def test_histories_are_those_that_the_run_read(tmp_path, dataset, written, hand_traces):
    run = written(tmp_path / "short", hand_traces(), is_complete=False, **{"stress.histories": "short", "stress.seed": 0})
    source = RunSource(load_run(run), dataset=dataset)
    block = source.block_json(source.users_json()["columns"]["block"][0])
    assert block["users"]["1"]["history"] == [28, 27]
    assert source.stored_dataset is dataset
