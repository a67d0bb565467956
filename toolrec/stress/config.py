"""What is spoilt on purpose."""

from __future__ import annotations

from typing import Any, Literal

from toolrec.util.settings import Settings, setting

ReplyFault = Literal["none", "typo", "synonym", "swap", "invented"]
HistoryKind = Literal["own", "contradictory", "rare", "shuffled", "short", "long"]


class StressSettings(Settings):
    """What robustness experiments spoil on purpose; by default nothing. All of it changes results."""

    reply_fault: ReplyFault = setting(
        "none",
        "What entries of the LLM's lists are replaced by: a misspelt title, another form of the title, an id with another "
        "item's title, or an item that does not exist.",
        changes_results=True,
    )
    reply_fault_share: float = setting(
        0.0, "Share of the entries of the LLM's lists that are replaced, 0 to 1.", changes_results=True, ge=0, le=1
    )
    histories: HistoryKind = setting(
        "own",
        "The users' own histories; or every second item of another taste or with rare attribute values, the own items in random "
        "order, the last 2 items alone, or the own items over and over up to 200.",
        changes_results=True,
    )
    seed: int = setting(0, "Seed of what is spoilt.", changes_results=True, ge=0)

    @property
    def has_reply_faults(self) -> bool:
        """Whether any entry may be replaced."""
        return self.reply_fault != "none" and self.reply_fault_share > 0

    def facts(self) -> dict[str, Any]:
        """What a protocol says of it; nothing where nothing is spoilt."""
        facts: dict[str, Any] = {}
        if self.has_reply_faults:
            facts["reply_faults"] = f"{self.reply_fault}, {self.reply_fault_share:.0%} of the entries"
        if self.histories != "own":
            facts["histories"] = self.histories
        return facts
