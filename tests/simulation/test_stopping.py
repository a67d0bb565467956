"""Signals to a process of its own: the first cancels, an echo changes nothing, the second ends it wherever it is."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from toolrec.simulation.stopping import ECHO_S, Stopping

STUBBORN = """
import asyncio, time
from toolrec.simulation.stopping import Stopping

async def main():
    print("running", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("cleaning up", flush=True)
        {cleaning}
        print("clean", flush=True)

with Stopping() as stopping:
    {around}
    stopping.run(main())
"""


def start(cleaning: str = "pass", around: str = "pass") -> subprocess.Popen[str]:
    code = STUBBORN.format(cleaning=cleaning, around=around)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    while (said := process.stdout.readline()) != f"{line}\n":
        assert said, process.communicate()[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_cancels_and_cleans_up(number: signal.Signals):
    process = start()
    wait_for(process, "running")
    process.send_signal(number)
    said, errors = process.communicate(timeout=240)
    assert said == "cleaning up\nclean\n"
    assert errors.count("· stopping") == 1
    assert "KeyboardInterrupt" in errors
    assert process.returncode == -signal.SIGINT  # an uncaught KeyboardInterrupt; the command line makes 130 of it


@pytest.mark.parametrize(
    "cleaning", ["await asyncio.Event().wait()", "time.sleep(600)", "__import__('threading').Event().wait()"]
)
def test_the_second_signal_ends_a_process_that_hangs(cleaning: str):
    process = start(cleaning)
    wait_for(process, "running")
    process.send_signal(signal.SIGINT)
    wait_for(process, "cleaning up")
    time.sleep(ECHO_S + 0.1)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=240)
    assert (process.returncode, said) == (130, "")


def test_an_echo_of_the_first_signal_is_none():
    process = start("await asyncio.sleep(1.0)")
    wait_for(process, "running")
    process.send_signal(signal.SIGTERM)
    wait_for(process, "cleaning up")
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=240)
    assert said == "clean\n"


def test_where_no_loop_runs_a_signal_interrupts():
    process = start(around="print('before', flush=True); time.sleep(600)")
    wait_for(process, "before")
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=240)
    assert said == ""
    assert "KeyboardInterrupt" in errors


@pytest.mark.parametrize("where", ["in the loop", "before it"])
def test_a_signal_is_heeded_where_nobody_reads_standard_error(where: str):
    process = start() if where == "in the loop" else start(around="print('running', flush=True); time.sleep(600)")
    wait_for(process, "running")
    assert process.stdout is not None and process.stderr is not None
    process.stderr.close()  # as with `2>&1 | tee log`, where Ctrl-C ends tee too
    process.send_signal(signal.SIGINT)
    said = process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=60) in (-signal.SIGINT, 120)  # 120: Python could not flush what it has to say of it
    assert said == ("cleaning up\nclean\n" if where == "in the loop" else "")


def test_another_thread_can_ask_as_a_notebook_does():
    stopping, began = Stopping(), threading.Event()

    async def main() -> None:
        began.set()
        await asyncio.sleep(60)

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(stopping.run, main())
        assert began.wait(10)
        stopping.ask()
        with pytest.raises(KeyboardInterrupt):
            running.result(10)


def test_what_was_asked_before_anything_ran_is_heeded():
    stopping, ran = Stopping(), []

    async def main() -> None:
        ran.append(True)

    stopping.ask()
    with pytest.raises(KeyboardInterrupt):
        stopping.run(main())
    assert not ran
