"""What was found out about a source, what was assumed and what was lost: shown before anything is written, then kept."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from toolrec.util.printable import printable

Level = Literal["found", "note", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One row of the report.

    Attributes:
        subject: the file, column or attribute that it is about.
        what: what was found or assumed.
        why: the reason.
        change: the flag that corrects it.
        level: `warning` where results may be wrong because of it.
    """

    subject: str
    what: str
    why: str = ""
    change: str = ""
    level: Level = "found"

    def as_sentence(self) -> str:
        """The finding in one line."""
        reason = f" ({self.why})" if self.why else ""
        change = f"; change it with {self.change}" if self.change else ""
        return f"{self.subject}: {self.what}{reason}{change}"


@dataclass(slots=True)
class Findings:
    """Findings in the order in which they were made."""

    entries: list[Finding] = field(default_factory=list)

    def found(self, subject: str, what: str, why: str = "", *, change: str = "") -> None:
        """What the reader read out of the file."""
        self.entries.append(Finding(subject=subject, what=what, why=why, change=change))

    def note(self, subject: str, what: str, why: str = "", *, change: str = "") -> None:
        """What was left out or assumed."""
        self.entries.append(Finding(subject=subject, what=what, why=why, change=change, level="note"))

    def warn(self, subject: str, what: str, why: str = "", *, change: str = "") -> None:
        """What may make results wrong."""
        self.entries.append(Finding(subject=subject, what=what, why=why, change=change, level="warning"))

    def sentences(self) -> list[str]:
        """Notes and warnings, for the manifest's notes."""
        return [
            ("warning: " if entry.level == "warning" else "") + entry.as_sentence()
            for entry in self.entries
            if entry.level != "found"
        ]

    def as_json(self) -> list[dict[str, Any]]:
        """All entries as plain values."""
        return [asdict(entry) for entry in self.entries]


def visible(text: str, *, limit: int = 60) -> str:
    """A text in quotation marks with everything that cannot be seen written as an escape: blanks at the ends, no-break
    spaces, control and bidirectional characters."""
    is_plain = printable(text) == text and unicodedata.normalize("NFC", text) == text
    shown = f"'{text}'" if is_plain else ascii(text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def examples(values: list[str], *, limit: int = 4) -> str:
    """A few values, each visible."""
    shown = ", ".join(visible(value) for value in values[:limit])
    return shown + (", …" if len(values) > limit else "")


_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def escaped(text: str) -> str:
    """A text whose control, format and bidirectional characters are written as escapes, the rest as it is."""
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in _UNSEEN else c for c in text)
