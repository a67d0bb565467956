"""The page in a real browser. Without Chromium these tests are skipped."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from toolrec.report import write_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=8000"]  # fmt: skip

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def page(run, dataset, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report([run], path, dataset=dataset)
    return path


@pytest.fixture(scope="module")
def misses_page(written, misses, dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("misses")
    write_report([written(folder / "first", misses)], folder / "report.html", dataset=dataset)
    return folder / "report.html"


@pytest.fixture
def shown(page, tmp_path):
    """Gives what a browser makes of an address within the page: its document, without scripts and parts."""

    def show(address: str, page: Path = page) -> str:
        done = subprocess.run(
            [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"{page.as_uri()}{address}"],
            capture_output=True,
            text=True,
            timeout=500,
            check=True,
        )
        told = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        assert told == [], told
        assert "<title>toolrec: first</title>" in done.stdout
        return re.sub(r"<script\b.*?</script>", "", done.stdout, flags=re.DOTALL)

    return show


def test_a_hostile_users_trace_is_text(shown):
    document = shown("#/run/0/user/u1")
    assert 'data-shown="user"' in document
    assert "Hit at position 2" in document and "★ brought the target" in document
    assert "&lt;script&gt;document.title='owned'&lt;/script&gt;&lt;img" in document and "<img" not in document
    assert "&lt;/textarea&gt;" in document and "<textarea" not in document
    assert "980,000 characters more in the run folder" not in document  # folded: the beginning is enough
    assert len(document) < 200_000


def test_hostile_titles_in_the_table_and_the_overview_is_drawn(shown):
    document = shown("#/run/0/users?vs.backbone=lost")
    assert "3 of 4 users" in document and "‮evil تفاحة" in document and "👩‍👩‍👧 family" in document
    assert "left out at the end, round 2" in document


def test_the_overview_leads_to_the_users_whom_only_the_surrogate_lost(shown):
    """Also at an address that is not well encoded."""
    document = shown("#/compare/user/%E0%A4%A")
    assert document.count("<svg") >= 10 and "What is significant" in document
    assert '<a class="preset" href="#/run/0/users?vs.backbone=lost">lost, though the backbone hit · 3</a>' in document
    assert '<span class="nobody">too deep in every list: none</span>' in document
    assert 'href="#/run/0/users?group=history_length%3A0"' in document


def test_every_miss_is_counted_by_one_cause_and_lists_of_nobody_are_no_links(shown, misses_page):
    document = shown("#/run/0/users?outcome=miss", misses_page)
    assert "3 of 3 users</span>. A hit is a place among the first 10;" in document
    [causes] = re.findall(r'<p class="presets causes">(.*?)</p>', document)
    assert re.findall(r"([a-z ]+) · (\d+)</a>", causes) == [
        ("no tool brought it", "1"), ("too deep in every list", "1"), ("ranked out", "1"),
    ]  # fmt: skip
    assert re.findall(r'<span class="nobody">([^<]+)', causes) == ["left out at the end: none", "masked: none"]
    assert '<span class="nobody">failed: none; every user finished</span>' in document
    for where in ("too deep in every list, nearest in round 1", "ranked out, round 2"):
        assert f">{where}</td>" in document


def test_a_trajectory_says_where_the_target_was_lost_as_the_table_does(shown, misses_page):
    document = shown("#/run/0/user/u1", misses_page)
    [told] = re.findall(r'<p class="fate too_deep">(.*?)</p>', document)
    words = re.sub("<[^>]+>", "", told)
    assert words.startswith("✗ Too deep in every list, nearest in round 1: every tool that returned it listed it beyond")
    assert "at best at position 12" in words and ">round 1</button>" in told
    assert "<h4>Round 1" in document and "✗ had it nearest here" in document
