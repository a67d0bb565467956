"""What a prepare must not do: unpack a bomb, replace a link or another data set, leave half a folder behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from toolrec.data import load_dataset
from toolrec.data.filters import FilterConfig
from toolrec.data.prepare import prepare
from toolrec.data.sources import SourceConfig, read_source
from toolrec.errors import DataError

Cli = Callable[..., Result]


def rows(num_users: int, *, seed: int = 0) -> str:
    random = np.random.default_rng(seed)
    return "user,item,time\n" + "".join(
        f"u{user},i{random.integers(500)},{10**9 + place}\n" for user in range(num_users) for place in range(10)
    )


def test_a_bomb_is_refused_by_its_stated_size(cli: Cli, tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.inter", "w", force_zip64=True) as member,
    ):
        member.write(b"user_id:token\titem_id:token\n")
        for _ in range(130):
            member.write(b"u1\ti1\n" * 175_000)
    assert (tmp_path / "bomb.zip").stat().st_size < 2_000_000
    started_s = time.monotonic()
    refused = cli("prepare", "recbole", "--source", tmp_path / "bomb.zip", "--out", tmp_path / "out")
    assert isinstance(refused.exception, DataError) and "times its packed size" in str(refused.exception)
    assert "--allow-large" in str(refused.exception) and time.monotonic() - started_s < 2


def test_a_link_stays_a_link(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(rows(20))
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    assert cli("prepare", "--interactions", tmp_path / "c.csv", "--out", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out").is_symlink() and (tmp_path / "disk" / "manifest.json").is_file()


SCRIPT = """
import sys, time
from pathlib import Path
import toolrec.data.store as store
from toolrec.cli import run_command
written = store.pq.write_table
def slow(table, path, **options):
    written(table, path, **options)
    Path(sys.argv[2], "reached").touch()
    time.sleep(60)
store.pq.write_table = slow
run_command(["data", "prepare", "--interactions", sys.argv[1], "--out", sys.argv[2] + "/out"])
"""


def test_a_killed_prepare_leaves_nothing_that_looks_finished_and_is_cleaned_up(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(rows(20))
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / "c.csv"), str(tmp_path)], cwd=Path.cwd())
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "reached").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        raw = read_source(SourceConfig(source="own", interactions=tmp_path / "c.csv"))
        prepare(raw, tmp_path / "out", filters=FilterConfig())  # beside one that is still at work
        assert len(list(tmp_path.glob(".out.*.preparing"))) == 1
        (tmp_path / "out").rename(tmp_path / "kept")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "out").exists() and len(list(tmp_path.glob(".out.*.preparing"))) == 1
    with pytest.raises(DataError):
        load_dataset(next(tmp_path.glob(".out.*.preparing")))
    prepare(raw, tmp_path / "out", filters=FilterConfig())
    assert sorted(child.name for child in tmp_path.iterdir()) == ["c.csv", "kept", "out", "reached"]


def test_reading_is_bounded_by_interactions_not_by_bytes(tmp_path: Path) -> None:
    """A file of long lines takes no more memory than one of short lines with the same interactions."""
    script = (
        "import sys, resource\nfrom toolrec.cli import run_command\n"
        "assert run_command(['data', 'prepare', '--interactions', sys.argv[1], '--out', sys.argv[1] + '.out']) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )

    def peak_mib(padding: int) -> int:
        path = tmp_path / f"c{padding}.jsonl"
        with path.open("w") as handle:
            for number in range(60_000):
                handle.write(f'{{"user": "u{number % 3000}", "item": "i{number % 700}", "text": "{"x" * padding}"}}\n')
        run = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
        return int(run.stdout.splitlines()[-1])

    short, long = peak_mib(1), peak_mib(5000)  # 3 MB and 300 MB
    assert long < short + 150, (short, long)
