"""The run's budget as the driver keeps it: what was spent in earlier sessions, and the stop when it is used up."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from toolrec.errors import RunStoppedError
from toolrec.llm.flow.budget import Budget
from toolrec.llm.flow.governor import FlowSnapshot
from toolrec.records import Usage
from toolrec.runs.folder import RunFolder, read_spend
from toolrec.runs.rows import sum_of_usage
from toolrec.simulation.memory.actor import spend_in_flight

UNFINISHED = "unfinished"
"""The journal's purpose for spend on rounds that never ended; it belongs to no user."""

LOOKS_AT_REST = 5
"""Looks at the flow in a row, half a second apart, that find nothing in flight before a run is stopped for its budget."""

_PAID = ("num_calls", "num_attempts", "prompt_tokens", "cached_tokens", "completion_tokens")


class BudgetWatch:
    """Stops a run whose budget is spent, after the replies in flight have arrived and been written.

    The governor lets no further request through by then. A run whose last users need no further reply ends by itself.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._num_looks_at_rest = 0

    def __call__(self, snapshot: FlowSnapshot) -> None:
        """Checks one snapshot of the flow.

        Raises:
            RunStoppedError: the budget is spent, and somebody waits for more.
        """
        is_at_rest = snapshot.is_budget_spent and snapshot.in_flight == 0 and snapshot.waiting > 0
        self._num_looks_at_rest = self._num_looks_at_rest + 1 if is_at_rest else 0
        # The users of the last replies may wait for their turn, and their rounds have to end and to be written down.
        if self._num_looks_at_rest >= LOOKS_AT_REST:
            raise budget_stop(self._budget, snapshot.usage, snapshot.num_unreported)


def budget_stop(budget: Budget, usage: Usage, num_unreported: int = 0) -> RunStoppedError:
    """The error of a run whose budget is spent.

    Args:
        budget: the run's.
        usage: what this session spent.
        num_unreported: completions of this session without usage.
    """
    if budget.is_unreported(usage, num_unreported):
        return RunStoppedError(
            "the endpoint reports no usage, so that a budget cannot be kept",
            hint="--resume without --budget-usd and --budget-tokens goes on",
        )
    said = f", and {num_unreported:,} replies of which the endpoint reported none" if num_unreported else ""
    return RunStoppedError(
        f"the budget is spent: {budget.state(usage)}{said}",
        hint="finished users are kept; a higher --budget-usd or --budget-tokens with --resume goes on",
    )


def spent_so_far(run: Path) -> Usage:
    """What the run has spent over all its sessions by its journal, void attempts included."""
    return sum_of_usage(read_spend(run))


def spent_before(folder: RunFolder) -> Usage:
    """What earlier sessions spent. Rounds that were in flight when the last one was killed are journalled first."""
    folder.journal(spend_in_flight(folder.rounds_in_flight))
    return spent_so_far(folder.path)


def journal_unfinished(folder: RunFolder, *, before: Usage, session: Usage) -> None:
    """Journals what a session spent on rounds that a stop or a kill cut short.

    Args:
        folder: the run folder.
        before: the journal's total when the session began.
        session: all that the session spent, as the clients counted it.
    """
    journal = read_spend(folder.path)
    after = sum_of_usage(journal)
    rest = {name: getattr(session, name) - (getattr(after, name) - getattr(before, name)) for name in _PAID}
    num_stored = after.num_stored_replies - before.num_stored_replies
    rest["num_calls"] += num_stored  # of these the clients know nothing
    if any(rest[name] > 0 for name in ("num_calls", "prompt_tokens", "completion_tokens")):  # answers without a reply cost too
        number = 1 + sum(entry["purpose"] == UNFINISHED for entry in journal)
        where = {"user_index": 0, "attempt": number, "round": 0, "tool": "", "purpose": UNFINISHED}
        folder.journal([{**where, **asdict(Usage(**{name: max(count, 0) for name, count in rest.items()}))}])
