"""What a person sees while something runs: on a terminal (a real pseudo-terminal), on a dumb one, in a pipe."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pyte
import pytest

from toolrec.util.progress import track, watched

ROOT = Path(__file__).resolve().parents[2]
COLUMNS, LINES = 80, 40

PROGRAM = """
import logging, sys, threading
from rich.text import Text
from toolrec.util.progress import stage, watched

logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")

class View:
    num_pictures = 0
    seen = threading.Event()

    def picture(self):
        self.num_pictures += 1
        if self.num_pictures >= wanted:
            self.seen.set()
        return Text(f"first row {number}\\nlast row {number}", style="red")

    def line(self):
        return f"the line {number}"

def wait_for_a_repaint():
    global wanted
    wanted = view.num_pictures + 2  # the next one may be under way
    view.seen.clear()
    assert view.seen.wait(20)

view, number, wanted = View(), 0, 10**9
stage("before")
with watched(view, interval_s=0.02, plain_interval_s=0.02):
    for number in range(1, 4):
        if sys.argv[1:] == ["repainted"]:
            wait_for_a_repaint()
        logging.warning("log %d %s", number, "x" * 60)
        if sys.argv[1:] == ["repainted"]:
            wait_for_a_repaint()
        stage(f"stage {number}")
        print("printed", number, flush=True)
    logging.warning("the last log line")
    number = 99
assert logging.getLogger().handlers[0].stream is sys.stderr
stage("after")
"""


def on_a_terminal(*arguments: str, **environment: str) -> tuple[pyte.Screen, str]:
    """What a program leaves on a screen, and all that it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env={**kept, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **environment},
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        written += chunk
    os.close(ours)
    assert process.wait() == 0, written.decode()
    screen = pyte.Screen(COLUMNS, LINES)
    pyte.ByteStream(screen).feed(written)
    return screen, written.decode()


def shown(screen: pyte.Screen) -> list[str]:
    return [line.rstrip() for line in screen.display if line.strip()]


def test_what_is_written_meanwhile_stands_above_the_view_and_breaks_no_line_of_it():
    screen, _ = on_a_terminal("repainted")
    meanwhile = [line for i in (1, 2, 3) for line in (f"WARNING log {i} {'x' * 60}", f"· stage {i}", f"printed {i}")]
    meanwhile.append("WARNING the last log line")
    assert shown(screen) == ["· before", *meanwhile, "first row 99", "last row 99", "· after"]
    assert not screen.cursor.hidden


def test_a_repaint_goes_back_over_its_own_rows_and_clears_no_screen():
    _, written = on_a_terminal("repainted")
    repaints = [part for part in written.split("first row") if "\x1b[1A" in part]
    assert len(repaints) >= 3
    assert "\x1b[2J" not in written, "the screen was cleared, which flickers"


def test_no_color_is_honoured():
    coloured = re.compile(r"\x1b\[(?:\d+;)*3[0-7]m")
    assert coloured.search(on_a_terminal("repainted")[1])
    screen, written = on_a_terminal("repainted", NO_COLOR="1")
    assert not coloured.search(written)
    assert shown(screen)[-3:] == ["first row 99", "last row 99", "· after"]


@pytest.mark.parametrize("kind", ["dumb", "unknown", ""])
def test_a_terminal_that_cannot_go_back_gets_plain_lines(kind: str):
    _, written = on_a_terminal(TERM=kind)
    assert "\x1b" not in written
    assert written.splitlines()[-2:] == ["the line 99", "· after"]


def test_a_pipe_gets_plain_lines_and_always_the_last_one():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert lines[:2] == ["· before", "the line 0"]
    assert lines[-2:] == ["the line 99", "· after"]
    assert "\x1b" not in done.stderr


class Counting:
    """A view that counts how often it is asked."""

    def __init__(self) -> None:
        self.num_lines = 0
        self.often = threading.Event()

    def picture(self) -> str:
        raise AssertionError("there is no terminal here")

    def line(self) -> str:
        self.num_lines += 1
        if self.num_lines == 4:
            self.often.set()
        return f"line {self.num_lines}"


def test_lines_come_on_their_own_and_the_last_one_after_an_error_too(capsys: pytest.CaptureFixture[str]):
    view = Counting()
    with pytest.raises(KeyboardInterrupt), watched(view, plain_interval_s=0.001):
        assert view.often.wait(20)
        raise KeyboardInterrupt
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"line {i}" for i in range(1, view.num_lines + 1)]
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_other_processes_of_a_group_say_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("RANK", "1")
    with watched(Counting()), track("training", total=2, unit="steps") as progress:
        progress.advance()
    assert capsys.readouterr().err == ""


class Broken(io.StringIO):
    """Standard error whose reader has gone."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal, self.is_gone = is_terminal, False

    def isatty(self) -> bool:
        return self._is_terminal

    def flush(self) -> None:
        if self.is_gone:
            raise BrokenPipeError


class Plain(Counting):
    """The same on a terminal."""

    def picture(self) -> str:
        return self.line()


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_view_that_nobody_sees_any_more_ends_without_an_error(monkeypatch: pytest.MonkeyPatch, is_terminal: bool):
    monkeypatch.setenv("TERM", "xterm")
    broken = Broken(is_terminal=is_terminal)
    monkeypatch.setattr(sys, "stderr", broken)
    view = Plain()
    with watched(view, interval_s=0.001, plain_interval_s=0.001):
        broken.is_gone = True
        assert view.often.wait(20)  # the thread goes on, too
    assert view.num_lines > 4
