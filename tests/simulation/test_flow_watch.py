"""The driver's eye on the flow, and limits that are changed while a run is under way; the governor in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError
from support import Clock

from toolrec.cli import run_command
from toolrec.errors import RunStoppedError
from toolrec.llm.flow.governor import ClientReport, FlowSettings, FlowTotals, Governor
from toolrec.llm.flow.outcomes import Outcomes
from toolrec.runs.control import CONTROL, ControlFile, current_settings
from toolrec.runs.folder import RunFolder
from toolrec.simulation.flow.governor_actor import exchange_with
from toolrec.simulation.flow.watch import FlowWatch, llm_counts


class Local:
    """A governor in this process behind an actor's interface; it can be lost and come back without what it knew."""

    def __init__(self, settings: FlowSettings) -> None:
        self.clock = Clock()
        self.first = settings
        self.is_away = False
        self.loss: Exception = RayActorError()
        self.restart()

    def restart(self) -> None:
        self.governor = Governor(self.first, ceiling=50, clock=self.clock)

    def __getattr__(self, name: str) -> Any:
        return Method(self, name)

    def restored(self, settings: FlowSettings, totals: dict[str, FlowTotals]) -> None:
        self.governor.retune(settings)
        self.governor.restore(totals)


class Method:
    def __init__(self, actor: Local, name: str) -> None:
        self.actor, self.name = actor, name

    async def remote(self, *arguments: Any) -> Any:
        if self.actor.is_away:
            raise self.actor.loss
        call = self.actor.restored if self.name == "restore" else getattr(self.actor.governor, self.name)
        return call(*arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    """A run folder that a driver holds."""
    held = RunFolder.create(tmp_path / "run", {"schema_version": 1, "resume_key": "k", "settings": {}})
    yield held
    held.close()


@pytest.fixture
def run(folder: RunFolder) -> Path:
    return folder.path


def watch(actor: Local, **settings: Any) -> FlowWatch:
    return FlowWatch(actor, actor.first, **{"outage_timeout_s": 60.0, **settings})  # type: ignore[arg-type]


def down(count: int) -> ClientReport:
    return ClientReport(
        waiting=1,
        outcomes=Outcomes(num_down=count, num_down_in_a_row=count),
        totals=FlowTotals(num_requests=count, failures={"503": count}),
    )


async def test_a_lost_governor_stops_nothing_and_what_was_known_comes_back():
    actor = Local(FlowSettings())
    looking = watch(actor)
    actor.governor.exchange("gone", ClientReport(totals=FlowTotals(num_requests=7, num_calls=7)))
    assert (await looking.poll()).num_requests == 7
    actor.is_away = True
    assert (await looking.poll()).num_requests == 7
    actor.loss = OutOfMemoryError("by the memory monitor")
    assert (await looking.poll()).num_requests == 7
    with pytest.raises(ConnectionError):  # the clients go on alone
        await exchange_with(actor, "a")(ClientReport())  # type: ignore[arg-type]
    actor.restart()
    actor.is_away = False
    actor.governor.exchange("here", ClientReport(totals=FlowTotals(num_requests=2, num_calls=2)))
    assert (await looking.poll()).num_requests == 9


async def test_changed_limits_reach_the_governor_and_outlive_it(run: Path):
    actor = Local(FlowSettings(requests_per_minute=60))
    looking = watch(actor, control=ControlFile(run, actor.first))
    assert run_command(["control", str(run), "--requests-per-minute", "none", "--llm-concurrency", "5"]) == 0
    wanted = FlowSettings(llm_concurrency=5)
    assert (await looking.poll()).settings == wanted
    assert actor.governor.exchange("a", ClientReport(waiting=40)).limit == 5
    actor.restart()
    assert (await looking.poll()).settings == wanted


async def test_a_change_made_while_the_governor_is_away_is_not_lost(run: Path):
    actor = Local(FlowSettings())
    looking = watch(actor, control=ControlFile(run, actor.first))
    await looking.poll()
    run_command(["control", str(run), "--pause"])
    actor.is_away = True
    await looking.poll()
    actor.is_away = False
    assert (await looking.poll()).pause_reason == "by hand"
    run_command(["control", str(run), "--resume"])
    assert (await looking.poll()).pause_reason == ""


async def test_a_damaged_control_file_is_logged_and_changes_nothing(run: Path, caplog: pytest.LogCaptureFixture):
    actor = Local(FlowSettings(tokens_per_minute=5000))
    looking = watch(actor, control=ControlFile(run, actor.first))
    for content in (
        "{",
        '{"requests_per_minute": "many"}',
        '{"requests_per_minute": -1}',
        '{"key": 1}',
        "[]",
        '{"is_paused": 1}',
    ):
        (run / CONTROL).unlink()
        (run / CONTROL).write_text(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert (await looking.poll()).settings == actor.first
        assert "is left alone" in caplog.text


def test_a_session_begins_with_its_own_limits(run: Path):
    ControlFile(run, FlowSettings(is_paused=True))
    begun = ControlFile(run, FlowSettings(requests_per_minute=9))
    assert current_settings(run) == FlowSettings(requests_per_minute=9)
    assert begun.changed() is None


def test_a_run_that_is_over_takes_no_change_and_is_shown(run: Path, folder: RunFolder, capsys: pytest.CaptureFixture[str]):
    ControlFile(run, FlowSettings())
    before = (run / CONTROL).read_text()
    folder.close()
    assert run_command(["control", str(run), "--pause"]) == 2
    assert "no process is at work in the run folder" in capsys.readouterr().err
    assert (run / CONTROL).read_text() == before
    assert run_command(["control", str(run)]) == 0


def test_control_shows_what_holds(run: Path, capsys: pytest.CaptureFixture[str]):
    ControlFile(run, FlowSettings(requests_per_minute=90, tokens_per_minute=1_234_567.5, llm_concurrency=7))
    assert run_command(["control", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["90", "1,234,567.5", "7", "no"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--requests-per-minute", "0"],
        ["--requests-per-minute", "nan"],
        ["--tokens-per-minute", "lots"],
        ["--llm-concurrency", "0"],
        ["--llm-concurrency", "2.5"],
        ["--llm-concurrency", "9" * 400],
        ["--llm-concurrency", "9" * 5000],
        ["--requests-per-minute", "1e16"],
        ["--pause", "--resume"],
    ],
)
def test_bad_values_are_refused_and_nothing_is_written(run: Path, flags: list[str]):
    ControlFile(run, FlowSettings(requests_per_minute=90))
    before = (run / CONTROL).read_text()
    assert run_command(["control", str(run), *flags]) == 2
    assert (run / CONTROL).read_text() == before


def test_a_run_that_is_not_there_or_not_begun_is_refused(run: Path, tmp_path: Path):
    assert run_command(["control", str(run)]) == 2
    assert run_command(["control", str(tmp_path / "none")]) == 2


async def test_an_endpoint_that_stays_down_stops_the_run():
    actor = Local(FlowSettings())
    looking = watch(actor)
    actor.governor.exchange("a", down(30))
    await looking.poll()
    actor.clock.now_s += 59.0
    actor.governor.exchange("a", ClientReport(waiting=1))
    await looking.poll()
    actor.clock.now_s += 2.0
    with pytest.raises(RunStoppedError, match="has been down for 61 s"):
        await looking.run(asyncio.Event())


async def test_too_many_failed_requests_stop_the_run():
    actor = Local(FlowSettings())
    looking = watch(actor, max_failed_requests=12)
    actor.governor.exchange("a", down(12))
    await looking.poll()
    actor.governor.exchange("a", down(13))
    with pytest.raises(RunStoppedError, match="503 13"):
        await looking.poll()


async def test_listeners_hear_every_snapshot_and_may_stop_the_run():
    actor = Local(FlowSettings())
    looking = watch(actor)
    heard = []
    looking.listeners.append(heard.append)
    await looking.poll()
    await looking.poll()
    assert len(heard) == 2

    def stop(_: object) -> None:
        raise RunStoppedError("enough")

    looking.listeners.append(stop)
    with pytest.raises(RunStoppedError, match="enough"):
        await looking.poll()


def test_counts_account_for_every_request():
    actor = Local(FlowSettings())
    totals = FlowTotals(num_requests=9, num_calls=5, failures={"429": 3, "parameter_refused": 1}, counts={"retry": 2})
    actor.governor.exchange("a", ClientReport(totals=totals))
    assert llm_counts(actor.governor.snapshot()) == {
        "http_requests": 9,
        "completions": 5,
        "failed:429": 3,
        "sent_again_without_parameter": 1,
        "retry": 2,
    }
    assert actor.governor.snapshot().num_failures == 3
