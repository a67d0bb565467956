import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from toolrec.cli import run_command
from toolrec.report import write_report
from toolrec.report.page import SCRIPTS, _texts, chart_style

VOID = {"meta"}


class Page(HTMLParser):
    """Collects elements and their texts, and checks that what opens is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))
        if tag not in VOID:
            self.open.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] == self.elements[-1][0]:
            self.elements[-1][2].append(data)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, tag):
        return [(attributes, "".join(texts)) for name, attributes, texts in self.elements if name == tag]


@pytest.fixture(scope="module")
def text(run, dataset, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report([run], path, dataset=dataset)
    return path.read_text(encoding="utf-8")


def parts_of(page):
    return {
        attributes["id"].removeprefix("part:"): json.loads(gzip.decompress(base64.b64decode(content)))
        for attributes, content in page.of("script")
        if attributes.get("type") == "application/gzip"
    }


def test_the_page_is_whole_and_names_no_other_place(text):
    page = Page(text)
    assert page.open == []
    assert not any({"src", "href", "style"} & set(attributes) for _, attributes, _ in page.elements)
    assert not any(name.startswith("on") for _, attributes, _ in page.elements for name in attributes)


def test_only_the_pages_own_scripts_and_styles_may_run(text):
    page = Page(text)
    [policy] = [a["content"] for a, _ in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and "connect-src" not in rules
    assert "unsafe" not in policy

    def hashes(contents):
        return {f"'sha256-{base64.b64encode(hashlib.sha256(c.encode()).digest()).decode()}'" for c in contents}

    scripts = [content for attributes, content in page.of("script") if not attributes]
    styles = [content for _, content in page.of("style")]
    assert set(rules["script-src"].split()) == hashes(scripts) and len(scripts) == len(SCRIPTS)
    assert set(rules["style-src"].split()) == hashes([*styles, chart_style()])


def test_the_chart_librarys_own_style_is_the_one_that_is_allowed():
    [plot] = [text for text in _texts(SCRIPTS) if "@observablehq/plot" in text[:100]]
    [style] = re.findall(r'append\("style"\)\.text\(`(:where\(\.\$\{c\}\) \{[^`]*)`', plot)
    assert style.replace("${c}", "chart").replace("\\n", "\n") == chart_style()


def test_every_user_is_inside_and_no_text_of_the_run_is_in_the_open(text, script):
    parts = parts_of(Page(text))
    users = parts["run/0/users"]
    traces = {index: trace for key in users["blocks"] for index, trace in parts[f"run/0/block/{key}"]["users"].items()}
    assert set(traces) == {"1", "2", "3", "4"}
    assert script in traces["1"]["rounds"][0]["thought"]
    assert "owned" not in text and "Pears" not in text


def test_the_same_run_gives_the_same_bytes(run, dataset, tmp_path, text):
    write_report([run], tmp_path / "again.html", dataset=dataset)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_scripts_put_texts_in_as_text_only():
    own = "".join(text for name, text in zip(SCRIPTS, _texts(SCRIPTS), strict=True) if not name.startswith("vendor/"))
    for door in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc"):
        assert door not in own, door


def test_the_command_writes_runs_whose_data_set_is_gone_and_refuses_what_is_none(run, tmp_path, capsys):
    out = tmp_path / "both.html"
    assert run_command(["report", str(run), str(run), "-o", str(out)]) == 0
    parts = parts_of(Page(out.read_text(encoding="utf-8")))
    assert "without titles" in parts["run/1/overview"]["warnings"][0]
    assert parts["compare"]["num_common"] == 4 and parts["compare"]["rows"] == []
    assert run_command(["report", str(tmp_path), "-o", str(out)]) == 2
    assert "this folder is no run" in capsys.readouterr().err
