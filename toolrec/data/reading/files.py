"""The files of a source: a folder, a zip or tar archive, one file or an fsspec URL. Archives are never extracted.

`.gz` and `.zst` files are decompressed as they are read, and are known by their name without that ending.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from toolrec.errors import ConfigError, DataError
from toolrec.util.urls import is_url

MAX_DEPTH = 6
"""Folders below the given one that are looked into."""
MAX_BYTES = 2 << 30
"""An archive member of more stated bytes than this must be allowed by hand."""
MAX_RATIO, RATIO_FROM_BYTES = 200, 100 << 20
"""So must one that states to be this many times larger than it is packed, from this size on."""
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, tarfile.TarError, lzma.LZMAError)
_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_PACKED_ENDINGS = (".gz", ".zst")


@dataclass(frozen=True, slots=True)
class _File:
    """One file: how to open it, its size where that is known (bytes as stored), and its place for messages."""

    open: Callable[[], IO[bytes]]
    num_bytes: int | None
    place: str


class SourceFiles:
    """Files of one source by their name without folders; remembers the SHA-256 of what was read.

    Args:
        path: a folder, a zip or tar archive, one file, or an fsspec URL such as `s3://bucket/folder`.
        allow_large: read archive members however large they state to be.

    Raises:
        DataError: missing, empty, or not a whole archive.
    """

    def __init__(self, path: Path | str, *, allow_large: bool = False) -> None:
        self.path = path
        self.allow_large = allow_large
        self.checksums: dict[str, str] = {}
        self._files: dict[str, list[_File]] = {}
        if is_url(path):
            self._list_url(str(path))
        else:
            self._list_path(Path(path))
        if not self._files:
            raise DataError("the source has no files", value=str(path))

    @property
    def names(self) -> list[str]:
        """Names of the files, without folders and without `.gz` or `.zst`."""
        return sorted(self._files)

    @property
    def label(self) -> str:
        """The source's own name, for the manifest: never its folder."""
        return PurePosixPath(str(self.path).rstrip("/")).name

    def has(self, *names: str) -> bool:
        """Whether all these files are there."""
        return all(name in self._files for name in names)

    def ending_with(self, suffix: str) -> list[str]:
        """Names with this ending."""
        return [name for name in self.names if name.lower().endswith(suffix)]

    def num_bytes(self, name: str) -> int | None:
        """The file's size as it is stored, where it is known."""
        return self._one(name).num_bytes

    def read(self, name: str) -> bytes:
        """The content of one file, whole.

        Raises:
            DataError: missing, empty, or damaged in the archive.
        """
        with self.stream(name) as handle:
            content = handle.read()
        if not content.strip():
            raise DataError(f"{name} is empty", value=str(self.path))
        return content

    @contextlib.contextmanager
    def stream(self, name: str) -> Iterator[IO[bytes]]:
        """One file, decompressed, to be read from its beginning; its checksum is known once it was read to the end.

        Raises:
            DataError: missing, or damaged in the archive; also while it is read.
        """
        file = self._one(name)
        with self._told(name):
            opened = file.open()
            handle = _HashedStream(_decompressed(opened, name))
            try:
                yield handle  # type: ignore[misc]
                if handle.is_at_end():
                    self.checksums[name] = handle.digest.hexdigest()
            finally:
                handle.close()
                opened.close()

    def head(self, name: str, num_bytes: int) -> bytes:
        """The first bytes of a file, decompressed."""
        with self.stream(name) as handle:
            return handle.read(num_bytes)

    def seekable(self, name: str) -> IO[bytes]:
        """One file as it is stored, for readers that jump about in it; to be closed by the caller."""
        with self._told(name):
            handle = self._one(name).open()
            if handle.seekable():
                return handle
            with handle:
                return io.BytesIO(handle.read())

    def _one(self, name: str) -> _File:
        if name not in self._files:
            raise DataError(f"the source has no file {name}", value=str(self.path), allowed=self.names[:20])
        if len(self._files[name]) > 1:
            raise DataError(
                f"the source has {len(self._files[name])} files {name}",
                value=", ".join(file.place for file in self._files[name][:4]),
                hint="give the folder that holds the one",
            )
        return self._files[name][0]

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except _DAMAGED as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{name} cannot be read from the archive ({error})", value=str(self.path), hint="get the file again"
            ) from None
        except OSError as error:
            raise DataError(f"{name} cannot be read ({error.strerror or error})", value=str(self.path)) from None

    def _list_path(self, path: Path) -> None:
        if not path.exists():
            raise DataError("the source does not exist", value=str(path))
        if path.is_dir():
            self._list_folder(path)
        elif path.suffix.lower() == ".zip" or (path.suffix.lower() != ".parquet" and zipfile.is_zipfile(path)):
            self._list_zip(path)
        elif path.name.lower().endswith(_TAR_ENDINGS):
            self._list_tar(path)
        elif path.is_file():
            self._add(path.name, lambda: path.open("rb"), path.stat().st_size, str(path))
        else:
            raise DataError("the source is neither a file nor a folder", value=str(path))

    def _list_folder(self, folder: Path) -> None:
        try:
            files = sorted(file for file in folder.rglob("*") if file.is_file())
        except OSError as error:
            raise DataError(f"the source cannot be read ({error.strerror})", value=str(folder)) from None
        for file in files:
            parts = file.relative_to(folder).parts
            if len(parts) <= MAX_DEPTH and not any(part.startswith(".") for part in parts):
                self._add(file.name, lambda file=file: file.open("rb"), file.stat().st_size, str(file))  # type: ignore[misc]

    def _list_zip(self, path: Path) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
        except (zipfile.BadZipFile, EOFError) as error:
            raise DataError(f"not a whole zip archive ({error})", value=str(path), hint="get the file again") from None
        except OSError as error:
            raise DataError(f"the source cannot be read ({error.strerror})", value=str(path)) from None
        for member in members:
            place = PurePosixPath(member.filename)
            if _is_wanted(place):
                self._refuse_bomb(member.filename, member.file_size, member.compress_size)
                self._add(
                    place.name,
                    lambda name=member.filename: _zip_member(path, name),  # type: ignore[misc]
                    member.file_size,
                    member.filename,
                )

    def _list_tar(self, path: Path) -> None:
        try:
            with tarfile.open(path) as archive:
                members = [member for member in archive if member.isfile()]
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            raise DataError(f"not a whole tar archive ({error})", value=str(path), hint="get the file again") from None
        for member in members:
            place = PurePosixPath(member.name)
            if _is_wanted(place):
                self._add(place.name, lambda name=member.name: _tar_member(path, name), member.size, member.name)  # type: ignore[misc]

    def _list_url(self, url: str) -> None:
        import fsspec

        try:
            system, place = fsspec.core.url_to_fs(url)
            found = [place] if system.isfile(place) else system.find(place)
        except ImportError as error:
            raise ConfigError(f"this kind of URL needs a package that is not installed ({error})", value=url) from None
        except (OSError, ValueError) as error:
            raise DataError(f"the source cannot be read ({error})", value=url) from None
        if not found:
            raise DataError("the source does not exist", value=url)
        for file in sorted(found):
            self._add(PurePosixPath(file).name, lambda file=file: system.open(file, "rb"), system.size(file), file)  # type: ignore[misc]

    def _refuse_bomb(self, name: str, num_bytes: int, packed: int) -> None:
        is_bomb = num_bytes > MAX_BYTES or (num_bytes > RATIO_FROM_BYTES and num_bytes > MAX_RATIO * max(packed, 1))
        if is_bomb and not self.allow_large:
            raise DataError(
                f"{name} in the archive states a size of {num_bytes / 2**30:.1f} GiB, {num_bytes // max(packed, 1):,} times its "
                "packed size",
                value=str(self.path),
                hint="--allow-large reads it nevertheless",
            )

    def _add(self, name: str, reader: Callable[[], IO[bytes]], num_bytes: int | None, place: str) -> None:
        known = name
        for ending in _PACKED_ENDINGS:
            known = known.removesuffix(ending)
        self._files.setdefault(known, []).append(_File(open=reader, num_bytes=num_bytes, place=place))


def data_name(path: Path | str) -> str:
    """The name of a data set that comes from a file or folder: without endings that only say how it is written."""
    name = PurePosixPath(str(path).rstrip("/")).name
    if not is_url(path) and Path(path).is_dir():
        return name
    endings = (".gz", ".zst", ".zip", ".tar", ".tgz", ".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet", ".inter")
    while (ending := PurePosixPath(name).suffix.lower()) in endings and name != ending:
        name = name[: -len(ending)]
    return name


def _is_wanted(place: PurePosixPath) -> bool:
    return not place.name.startswith(".") and "__MACOSX" not in place.parts


def _zip_member(path: Path, name: str) -> IO[bytes]:
    return zipfile.ZipFile(path).open(name)


def _tar_member(path: Path, name: str) -> IO[bytes]:
    archive = tarfile.open(path)  # noqa: SIM115  # the member reads from it
    member = archive.extractfile(name)
    assert member is not None  # only regular files are listed
    return member


def _decompressed(handle: IO[bytes], name: str) -> IO[bytes]:
    magic = handle.read(4)
    rest: Any = _Rejoined(magic, handle)
    if magic[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=rest)  # type: ignore[arg-type,return-value]
    if magic == b"\x28\xb5\x2f\xfd":
        import pyarrow as pa

        return io.BufferedReader(_ArrowRaw(pa.CompressedInputStream(pa.PythonFile(rest, mode="r"), "zstd"), name))
    return rest  # type: ignore[no-any-return]


class _ArrowRaw(io.RawIOBase):
    """Arrow's decompression as a raw stream, its complaints as an OSError."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name = stream, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._stream.read(len(buffer))
        except (OSError, ValueError) as error:
            raise EOFError(f"damaged zstd data: {error}") from None
        buffer[: len(content)] = content
        return len(content)


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were read already."""

    def __init__(self, first: bytes, rest: IO[bytes]) -> None:
        self._first, self._rest = first, rest

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
        if size is None or size < 0:
            content, self._first = self._first + self._rest.read(), b""
            return content
        if self._first:
            content, self._first = self._first[:size], self._first[size:]
            return content + self._rest.read(size - len(content)) if len(content) < size else content
        return self._rest.read(size)

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


class _HashedStream(io.RawIOBase):
    """Hashes what passes through."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
        content = self._source.read() if size is None or size < 0 else self._source.read(size)
        self.digest.update(content)
        return content

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def is_at_end(self) -> bool:
        """Whether nothing is left."""
        return not self._source.read(1)
