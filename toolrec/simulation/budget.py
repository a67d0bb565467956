"""A run's budget in the driver: what earlier sessions spent, and the stop when nothing is left."""

from __future__ import annotations

from pathlib import Path

from toolrec.errors import RunStoppedError
from toolrec.llm.budget import Budget
from toolrec.llm.flow import FlowSnapshot
from toolrec.records import Usage
from toolrec.simulation.rows import usage_of
from toolrec.simulation.run_folder import read_spend


class BudgetWatch:
    """Stops a run whose budget is spent, once what was in flight has come back and is written down.

    The governor lets nothing further through from then on; a run whose last users need no further reply ends by itself.

    Args:
        budget: the run's.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._is_at_rest = False

    def __call__(self, snapshot: FlowSnapshot) -> None:
        """Takes a look at the flow.

        Raises:
            RunStoppedError: the budget is spent, and somebody waits for more.
        """
        was_at_rest = self._is_at_rest
        self._is_at_rest = snapshot.is_budget_spent and snapshot.in_flight == 0 and snapshot.waiting > 0
        # At rest twice in a row: the rounds of the last replies have had their time to end and to be written down.
        if was_at_rest and self._is_at_rest:
            raise budget_stop(self._budget, snapshot.usage)


def budget_stop(budget: Budget, usage: Usage) -> RunStoppedError:
    """What is said when nothing is left.

    Args:
        budget: the run's.
        usage: what this session spent.
    """
    return RunStoppedError(
        f"the budget is spent: {budget.state(usage)}",
        hint="finished users are kept; a higher --budget-usd or --budget-tokens with --resume goes on",
    )


def spent_before(run: Path) -> Usage:
    """What earlier sessions of the run spent, attempts that came to nothing included."""
    unique = {(e["user_index"], e["attempt"], e["round"], e["purpose"]): e for e in read_spend(run)}
    return sum((usage_of(entry) for entry in unique.values()), Usage())
