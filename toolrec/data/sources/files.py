"""The files of a source, from a folder, a zip archive or one file: read in memory, never extracted to a path of the archive's."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from toolrec.errors import DataError


class SourceFiles:
    """Files of one source by their name without folders; remembers the SHA-256 of what was read.

    Args:
        path: a folder (its files and those one folder below), a zip archive, or one file.

    Raises:
        DataError: missing, empty, or not a zip archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checksums: dict[str, str] = {}
        self._readers: dict[str, list[Callable[[], bytes]]] = {}
        if not path.exists():
            raise DataError("the source does not exist", value=str(path))
        if path.is_dir():
            self._list_folder()
        elif path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
            self._list_archive()
        else:
            self._add(path.name, path.read_bytes)
        if not self._readers:
            raise DataError("the source has no files", value=str(path))

    @property
    def names(self) -> list[str]:
        """Names of the files, without folders."""
        return sorted(self._readers)

    def has(self, *names: str) -> bool:
        """Whether all these files are there."""
        return all(name in self._readers for name in names)

    def ending_with(self, suffix: str) -> list[str]:
        """Names with this ending."""
        return [name for name in self.names if name.lower().endswith(suffix)]

    def read(self, name: str) -> bytes:
        """The content of one file.

        Raises:
            DataError: missing, empty, or damaged in the archive.
        """
        if name not in self._readers:
            raise DataError(f"the source has no file {name}", value=str(self.path), allowed=self.names[:20])
        if len(self._readers[name]) > 1:
            raise DataError(
                f"the source has {len(self._readers[name])} files {name}",
                value=str(self.path),
                hint="give the folder that holds the one",
            )
        try:
            content = self._readers[name][0]()
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise DataError(
                f"{name} cannot be read from the archive ({error})", value=str(self.path), hint="get the file again"
            ) from None
        except OSError as error:
            raise DataError(f"{name} cannot be read ({error.strerror or error})", value=str(self.path)) from None
        if not content.strip():
            raise DataError(f"{name} is empty", value=str(self.path))
        self.checksums[name] = hashlib.sha256(content).hexdigest()
        return content

    def _list_folder(self) -> None:
        try:
            files = [file for pattern in ("*", "*/*") for file in self.path.glob(pattern) if file.is_file()]
        except OSError as error:
            raise DataError(f"the source cannot be read ({error.strerror})", value=str(self.path)) from None
        for file in files:
            if not file.name.startswith("."):
                self._add(file.name, file.read_bytes)

    def _list_archive(self) -> None:
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
        except (zipfile.BadZipFile, EOFError) as error:
            raise DataError(f"not a whole zip archive ({error})", value=str(self.path), hint="get the file again") from None
        except OSError as error:
            raise DataError(f"the source cannot be read ({error.strerror})", value=str(self.path)) from None
        for member in members:
            place = PurePosixPath(member.filename)
            if not place.name.startswith(".") and "__MACOSX" not in place.parts:
                self._add(place.name, lambda name=member.filename: self._read_member(name))  # type: ignore[misc]

    def _read_member(self, name: str) -> bytes:
        with zipfile.ZipFile(self.path) as archive:
            return archive.read(name)

    def _add(self, name: str, reader: Callable[[], bytes]) -> None:
        self._readers.setdefault(name, []).append(reader)
