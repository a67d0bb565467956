"""Files are whole or not there; a full disk is said as such."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from toolrec.errors import DataError, StorageError
from toolrec.util.files import atomic_file, atomic_folder, read_json, sha256_json, write_json


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "folder"
    for content in ("one", "two"):
        with atomic_folder(path) as temporary:
            (temporary / content).write_text(content)
    with pytest.raises(RuntimeError), atomic_folder(path) as temporary:
        (temporary / "three").write_text("half")
        raise RuntimeError
    assert [child.name for child in path.iterdir()] == ["two"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_storage_error_with_exit_code_3(tmp_path: Path, code: int):
    with pytest.raises(StorageError, match="no space left") as caught, atomic_file(tmp_path / "a"):
        raise OSError(code, "full")
    assert caught.value.exit_code == 3
    assert not list(tmp_path.iterdir())


def test_numbers_that_json_does_not_know_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_missing_or_damaged_json_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="file not found"):
        read_json(tmp_path / "a", error=DataError)
    (tmp_path / "b").write_bytes(b"\xff\xfe{")
    with pytest.raises(DataError, match="not a JSON file"):
        read_json(tmp_path / "b", error=DataError)


def test_a_checksum_does_not_depend_on_the_order_of_keys():
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1}) != sha256_json({"a": 2, "b": 1})
