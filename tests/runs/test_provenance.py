"""A run goes on with the code and the fusions that it was started with, unless a person accepts others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolrec.errors import RunFolderError
from toolrec.provenance import _own_sources, installed_packages, machine_facts, package_hash, part_hashes
from toolrec.runs.folder import RunFolder, read_manifest
from toolrec.util.files import write_json


def manifest_of(*, code: str | None = "a", fusions: str | None = "f", own: str = "o") -> dict[str, Any]:
    learned = None if fusions is None else {"learned": [{"name": "ranker", "folder": "x", "files": {"w": fusions}}]}
    return {
        "schema_version": 1,
        "resume_key": "k",
        "settings": {},
        "versions": {"toolrec": "0.1.0", "commit": f"commit-{code}"},
        "recommenders": {"manifest": {"fusions": learned}},
        **({} if code is None else {"code": {"toolrec": code, "parts:Own": own}}),
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    RunFolder.create(tmp_path / "run", manifest_of()).close()
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"code": "b"}, r"the code of toolrec has changed \(started with 0.1.0 at commit-a, this is 0.1.0 at commit-b\)"),
        ({"own": "p"}, "the code of parts:Own has changed"),
        ({"fusions": "g"}, "fusions were fitted again, or removed"),
        ({"fusions": None}, "fusions were fitted again, or removed"),
    ],
)
def test_what_has_changed_is_refused_until_it_is_accepted(run: Path, changes: dict[str, str], said: str):
    with pytest.raises(RunFolderError, match=said):
        RunFolder.resume(run, manifest_of(**changes))
    assert read_manifest(run) == manifest_of()
    RunFolder.resume(run, manifest_of(**changes), accepts_changes=True).close()
    [accepted] = read_manifest(run)["resumed_after_changes"]
    assert accepted["changes"]
    assert read_manifest(run)["code"] == manifest_of()["code"], "what it was started with stays"


def test_what_was_accepted_once_need_not_be_accepted_again(run: Path):
    RunFolder.resume(run, manifest_of(code="b"), accepts_changes=True).close()
    accepted = read_manifest(run)
    RunFolder.resume(run, manifest_of(code="b")).close()
    RunFolder.resume(run, manifest_of(code="b"), accepts_changes=True).close()
    RunFolder.resume(run, manifest_of()).close()
    assert read_manifest(run) == accepted
    for other in ({"code": "c"}, {"code": "b", "fusions": "g"}, {"code": "b", "own": "p"}):
        with pytest.raises(RunFolderError, match="since the run was started"):
            RunFolder.resume(run, manifest_of(**other))


def test_changes_that_an_earlier_version_accepted_hold_for_its_fusions(run: Path):
    RunFolder.resume(run, manifest_of(code="b"), accepts_changes=True).close()
    manifest = read_manifest(run)
    for entry in manifest["resumed_after_changes"]:
        del entry["fusions"]
    write_json(run / "manifest.json", manifest)
    RunFolder.resume(run, manifest_of(code="b")).close()
    with pytest.raises(RunFolderError, match="fusions were fitted again"):
        RunFolder.resume(run, manifest_of(code="b", fusions="g"))


def test_the_same_code_goes_on(run: Path):
    RunFolder.resume(run, manifest_of()).close()
    assert "resumed_after_changes" not in read_manifest(run)


def test_folders_of_earlier_versions_go_on(tmp_path: Path):
    RunFolder.create(tmp_path / "run", manifest_of(code=None, fusions=None)).close()
    RunFolder.resume(tmp_path / "run", manifest_of(code="b", fusions="g")).close()


def test_parts_of_the_user_have_a_hash_and_the_packages_own_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import importlib

    from toolrec.surrogate import Surrogate

    (tmp_path / "own_part_for_hash.py").write_text("class Own: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    own = importlib.import_module("own_part_for_hash").Own
    assert list(part_hashes({"toolrec": Surrogate, "own_part_for_hash:Own": own})) == ["own_part_for_hash:Own"]


def test_what_a_part_imports_from_its_own_folder_is_in_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import importlib

    files = {
        "hashed/__init__.py": "",
        "hashed/part.py": "import numpy\nfrom . import near\nfrom toolrec import records\nclass Own: pass\n",
        "hashed/near.py": "def f():\n    from beside_for_hash.deep import CONSTANT\n    return CONSTANT\n",
        "hashed/unused.py": "A = 1\n",
        "beside_for_hash/__init__.py": "",
        "beside_for_hash/deep.py": "CONSTANT = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = {"own": importlib.import_module("hashed.part").Own}
    before = part_hashes(own)
    for name in files:
        path = tmp_path / name
        path.write_text(files[name] + "# changed\n")
        assert (part_hashes(own) == before) == (name == "hashed/unused.py"), name
        path.write_text(files[name])
    assert part_hashes(own) == before


def test_a_part_that_is_also_run_by_itself_has_a_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`from .near import x` beyond the top is what such a file tries first; it is no reason to end."""
    import importlib

    (tmp_path / "near_for_hash.py").write_text("X = 1\n")
    text = "try:\n    from .near_for_hash import X\nexcept ImportError:\n    from near_for_hash import X\nclass Own: pass\n"
    (tmp_path / "tried_for_hash.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = {"own": importlib.import_module("tried_for_hash").Own}
    before = part_hashes(own)
    (tmp_path / "near_for_hash.py").write_text("X = 2\n")
    assert before["own"] != part_hashes(own)["own"]


def test_a_part_that_is_a_link_has_the_hash_of_what_it_leads_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import importlib

    (tmp_path / "store").mkdir()
    stored = tmp_path / "store" / "version-1.py"
    stored.write_text("class Own: pass\n")
    (tmp_path / "linked_for_hash.py").symlink_to(stored)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = {"own": importlib.import_module("linked_for_hash").Own}
    before = part_hashes(own)
    stored.write_text("class Own: x = 1\n")
    assert before["own"] != part_hashes(own)["own"]


def test_of_an_installed_part_its_own_package_is_in_the_hash():
    import tenacity

    sources = _own_sources("tenacity.retry")
    assert {"tenacity", "tenacity.retry"} <= set(sources)
    assert {name.partition(".")[0] for name in sources} == {"tenacity"}
    assert sources["tenacity"] == Path(tenacity.__file__).resolve()


def test_what_is_known_of_code_packages_and_machine():
    assert len(package_hash()) == 64
    assert {"numpy", "scipy"} <= set(installed_packages())
    assert machine_facts()["usable_cpus"] >= 1
    assert "OMP_NUM_THREADS" in machine_facts()["threads"]
