import pytest

from toolrec.cli import run_command
from toolrec.errors import ConfigError
from toolrec.evaluation.planning import Spread, make_plan
from toolrec.evaluation.statistics import Resampling
from toolrec.evaluation.summary import summarise
from toolrec.runs.folder import RunFolder
from toolrec.util.files import write_json

Z = 1.959964 + 0.841621


def test_users_that_unrelated_lists_need():
    # Of two unrelated recommenders with hit rate 0.2, 2 * 0.2 * 0.8 of the users are hit by one only.
    plan = make_plan(0.03, Spread.of_hits(0.2, differing=None, difference=0.03))
    assert plan.num_users == pytest.approx(Z**2 * (0.32 - 0.03**2) / 0.03**2, abs=1)
    at_needed = next(size for size in plan.sizes if size.num_users == plan.num_users)
    assert at_needed.power == pytest.approx(0.8, abs=0.002)
    assert at_needed.detectable == pytest.approx(0.03, abs=1e-4)
    assert [size.num_users for size in plan.sizes] == sorted(size.num_users for size in plan.sizes)


def test_fewer_users_are_needed_where_fewer_differ():
    few, many = (make_plan(0.03, Spread.of_hits(0.2, differing=share, difference=0.03)) for share in (0.1, 0.3))
    assert few.num_users == pytest.approx(many.num_users * (0.1 - 0.0009) / (0.3 - 0.0009), rel=0.01)


def test_a_negative_difference_needs_as_many_users():
    spread = Spread.of_hits(0.2, differing=0.3, difference=0.03)
    assert make_plan(-0.03, spread).num_users == make_plan(0.03, spread).num_users


@pytest.mark.parametrize(
    ("difference", "given", "words"),
    [
        (0.03, {"hit_rate": 1.0}, "hit rate"),
        (0.03, {"hit_rate": 0.2, "differing": 1.5}, "share of differing users"),
        (0.2, {"hit_rate": 0.2, "differing": 0.1}, "larger than the share"),
    ],
)
def test_shares_that_cannot_be_are_refused(difference, given, words):
    with pytest.raises(ConfigError, match=words):
        Spread.of_hits(given["hit_rate"], differing=given.get("differing"), difference=difference)


@pytest.fixture
def run(tmp_path, users, dataset, baseline_lists, protocol):
    folder = RunFolder.create(tmp_path / "run", {"schema_version": 1, "resume_key": "k", "settings": {}})
    folder.close()
    protocol["users_in_data_set"] = 6
    summary = summarise(users, dataset, baseline_lists, protocol=protocol, resampling=Resampling(num_resamples=50))
    write_json(tmp_path / "run" / "summary.json", summary)
    return tmp_path / "run"


def test_a_run_gives_the_spread_and_the_size_of_its_data_set(run, capsys):
    assert run_command(["plan-users", "--difference", "0.05", "--run", str(run), "--metric", "ndcg@10"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "from 4 users of the run: ndcg@10 of surrogate minus backbone" in out
    assert "The data set has only 6." in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--difference", "0"], "not 0"),
        (["--difference", "0.03", "--power", "1"], "power is at least 0.5"),
        (["--difference", "0.03", "--run", "RUN", "--row", "nobody"], "no such row"),
        (["--difference", "0.03", "--run", "RUN", "--reference", "popularity"], "compared to no such row"),
        (["--difference", "0.03", "--run", "RUN", "--metric", "ndcg@20"], "no such figure"),
    ],
)
def test_bad_input_is_told(run, flags, words, capsys):
    assert run_command(["plan-users", *(str(run) if flag == "RUN" else flag for flag in flags)]) == 2
    assert words in capsys.readouterr().err
