"""A bucket in this process's memory whose requests fail as a test says. It is a file system of fsspec's, injected by its URL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class Bucket(MemoryFileSystem):
    """Objects in memory under `bucket://`; `fault` is asked before each request and may raise, or spoil what is read."""

    protocol = "bucket"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    requests: ClassVar[list[tuple[str, str]]] = []
    fault: Callable[[str, str], Any] | None = None
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("bucket://").strip("/")

    def _ask(self, verb: str, path: str) -> Any:
        type(self).requests.append((verb, path))
        return type(self).fault(verb, path) if type(self).fault is not None else None

    def find(self, path: str, **how: Any) -> Any:
        self._ask("list", path)
        return super().find(path, **how)

    def cat_file(self, path: str, **how: Any) -> Any:
        self._ask("read", path)
        return super().cat_file(path, **how)

    def get_file(self, rpath: str, lpath: str, **how: Any) -> None:
        spoil = self._ask("read", rpath)
        Path(lpath).write_bytes(super().cat_file(rpath)[: -1 if spoil == "truncated" else None])

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **how: Any) -> None:
        spoil = self._ask("write", path)
        super().pipe_file(path, value, mode=mode, **how)
        if spoil == "answer lost":
            raise ConnectionResetError("the answer did not arrive")

    def rm_file(self, path: str) -> None:
        self._ask("delete", path)
        super().rm_file(path)


def put_folder(folder: Path, url: str) -> None:
    """Copies a folder into a bucket, as `aws s3 cp --recursive` does."""
    system, root = fsspec.core.url_to_fs(url)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            system.pipe_file(f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def failing(num: int, error: Exception, *, verb: str | None = None, name: str = "") -> Callable[[str, str], Any]:
    """A fault of the first requests of a kind."""
    left = [num]

    def fault(asked: str, path: str) -> Any:
        if left[0] and asked == (verb or asked) and name in path:
            left[0] -= 1
            raise error
        return None

    return fault
