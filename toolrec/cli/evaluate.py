"""`toolrec evaluate`: the main job."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from toolrec.evaluation.bill import Bill
    from toolrec.simulation.config import EvaluationConfig


class Split(StrEnum):
    """The split whose targets are held out."""

    test = "test"
    valid = "valid"


class Protocol(StrEnum):
    """How the surrogate says its actions."""

    tools = "tools"
    text = "text"


class FinishPolicy(StrEnum):
    """Where the final list comes from."""

    as_given = "as_given"
    final_rank = "final_rank"


Folder = Annotated[Path, typer.Argument(help="Data set folder, as `toolrec data prepare` writes it.", show_default=False)]


def evaluate(
    dataset: Folder,
    recommenders: Annotated[Path | None, typer.Option(help="Recommenders' folder; default recommenders/NAME.")] = None,
    run: Annotated[Path | None, typer.Option(help="Run folder; default runs/TIME-NAME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run folder given by --run.")] = False,
    split: Annotated[Split, typer.Option(help="Held-out split.")] = Split.test,
    users: Annotated[str, typer.Option(help="How many users, or `all`. Samples of one seed are nested.")] = "all",
    seed: Annotated[int, typer.Option(help="Seed of the user sample and of the statistics.")] = 0,
    attributes: Annotated[str | None, typer.Option(help="Attribute tools, comma separated; default all.")] = None,
    protocol: Annotated[Protocol, typer.Option(help="Native tool calls, or the paper's text form.")] = Protocol.tools,
    rounds: Annotated[int, typer.Option(help="Decisions before the forced finish.")] = 7,
    prompt_history_length: Annotated[int, typer.Option(help="Items of the history that the surrogate sees.")] = 10,
    finish_policy: Annotated[FinishPolicy, typer.Option(help="The list as given, or one more ranking.")] = FinishPolicy.as_given,
    mask_seen: Annotated[bool, typer.Option(help="Leave the history's items out of every list.")] = True,
    max_reasks: Annotated[int, typer.Option(help="Times that an unusable reply is asked for again.")] = 3,
    shuffle_rank_candidates: Annotated[int | None, typer.Option(help="Seed that shuffles what the rank tool is shown.")] = None,
    user_token_budget: Annotated[int | None, typer.Option(help="Tokens after which a user ends; default no limit.")] = None,
    user_timeout_s: Annotated[float, typer.Option(help="Seconds after which a user ends, our own waits apart.")] = 3600.0,
    llm_url: Annotated[
        str | None,
        typer.Option(envvar="TOOLREC_LLM_URL", help="Base URL of an OpenAI-like endpoint; default the embedded rules."),
    ] = None,
    llm_model: Annotated[str | None, typer.Option(envvar="TOOLREC_LLM_MODEL", help="Model name at that endpoint.")] = None,
    llm_key_env: Annotated[str, typer.Option(help="Environment variable that holds the key.")] = "OPENAI_API_KEY",
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature; default the endpoint's own.")] = None,
    llm_seed: Annotated[int | None, typer.Option(help="Seed sent with every LLM call.")] = None,
    llm_max_output_tokens: Annotated[int | None, typer.Option(help="The longest reply, in tokens.")] = 2048,
    llm_max_attempts: Annotated[int, typer.Option(help="HTTP requests an LLM call may take.")] = 6,
    llm_max_malformed: Annotated[
        int | None, typer.Option(help="Of these, answers that hold no reply; default as many.", show_default=False)
    ] = None,
    llm_timeout_s: Annotated[float, typer.Option(help="Seconds an HTTP request may take.")] = 120.0,
    llm_max_failed_user: Annotated[int, typer.Option(help="Failed HTTP requests a user may take, in each attempt.")] = 60,
    max_failed_requests: Annotated[int | None, typer.Option(help="Failed HTTP requests before the run stops.")] = None,
    outage_timeout_s: Annotated[float, typer.Option(help="Seconds the endpoint may be down before the run stops.")] = 600.0,
    requests_per_minute: Annotated[float | None, typer.Option(help="LLM requests a minute, over all nodes.")] = None,
    tokens_per_minute: Annotated[float | None, typer.Option(help="LLM tokens a minute, over all nodes.")] = None,
    llm_concurrency: Annotated[
        int | None, typer.Option(help="LLM requests in flight at most, over all nodes; default as users in flight.")
    ] = None,
    llm_check: Annotated[bool, typer.Option(help="Try the endpoint with one call before the run.")] = True,
    strategy: Annotated[str, typer.Option(help="Own strategy: MODULE:CLASS or an entry point.")] = "toolrec.surrogate:Surrogate",
    rank_tool: Annotated[str, typer.Option(help="Own rank tool, likewise.")] = "toolrec.tools.rank:RankTool",
    baseline: Annotated[list[str] | None, typer.Option(help="Own recommender to score beside; may be repeated.")] = None,
    tools: Annotated[str, typer.Option(help="deploy, attach:APP or local.")] = "deploy",
    tools_config: Annotated[Path | None, typer.Option(help="YAML file with the application's options (replicas, CPUs).")] = None,
    keep_tools: Annotated[bool, typer.Option("--keep-tools", help="Leave the deployed application up.")] = False,
    concurrency: Annotated[int, typer.Option(help="Users in flight.")] = 64,
    actors: Annotated[int | None, typer.Option(help="Simulation actors; default one a core.")] = None,
    address: Annotated[str | None, typer.Option(help="A running Ray; default one of our own.")] = None,
    num_cpus: Annotated[int | None, typer.Option(help="CPUs of our own Ray; default all.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Port where our own Ray answers Prometheus; default any.")] = None,
    prices: Annotated[
        Path | None, typer.Option(envvar="TOOLREC_PRICES", help="YAML file with dollars a million tokens, by model.")
    ] = None,
    budget_usd: Annotated[float | None, typer.Option(help="Dollars at which the run stops, resumable; needs --prices.")] = None,
    budget_tokens: Annotated[int | None, typer.Option(help="Tokens at which the run stops, resumable.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Simulate a few users and estimate what all would cost.")] = False,
    dry_run_users: Annotated[int, typer.Option(help="How many users a dry run takes.", min=1)] = 20,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of replies that are not paid twice. The same call gets the same reply, at any temperature."),
    ] = None,
    cache_max_age: Annotated[str | None, typer.Option(help="Replies older than this are asked for anew: 12h, 7d.")] = None,
    record: Annotated[Path | None, typer.Option(help="Folder in which every reply is kept, for --replay.")] = None,
    replay: Annotated[Path | None, typer.Option(help="Recording to answer from: no endpoint, no key; misses are errors.")] = None,
) -> None:
    """Simulate users with LLM surrogates, score their lists, and hold them against the recommenders alone."""
    from toolrec.evaluation.tables import print_summary
    from toolrec.simulation.config import EvaluationConfig
    from toolrec.simulation.evaluate import run_evaluation

    config = EvaluationConfig.from_options(
        dataset=dataset,
        recommenders=recommenders,
        run=run,
        resume=resume,
        split=split.value,
        users=users,
        seed=seed,
        attributes=attributes,
        protocol=protocol.value,
        rounds=rounds,
        prompt_history_length=prompt_history_length,
        finish_policy=finish_policy.value,
        mask_seen=mask_seen,
        max_reasks=max_reasks,
        shuffle_rank_candidates=shuffle_rank_candidates,
        user_token_budget=user_token_budget,
        user_timeout_s=user_timeout_s,
        llm_url=llm_url,
        llm_model=llm_model,
        llm_key_env=llm_key_env,
        temperature=temperature,
        llm_seed=llm_seed,
        llm_max_output_tokens=llm_max_output_tokens,
        llm_max_attempts=llm_max_attempts,
        llm_max_malformed=llm_max_malformed,
        llm_timeout_s=llm_timeout_s,
        llm_max_failed_user=llm_max_failed_user,
        max_failed_requests=max_failed_requests,
        outage_timeout_s=outage_timeout_s,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        llm_concurrency=llm_concurrency,
        llm_check=llm_check,
        strategy=strategy,
        rank_tool=rank_tool,
        baselines=tuple(baseline or ()),
        tools=tools,
        tools_config=tools_config,
        keep_tools=keep_tools,
        concurrency=concurrency,
        actors=actors,
        address=address,
        num_cpus=num_cpus,
        metrics_port=metrics_port,
        prices=prices,
        budget_usd=budget_usd,
        budget_tokens=budget_tokens,
        cache=cache,
        cache_max_age=cache_max_age,
        record=record,
        replay=replay,
    )
    if dry_run:
        _print_dry_run(config, dry_run_users)
        return
    summary, folder = run_evaluation(config)
    print_summary(summary)
    typer.echo(f"run folder: {folder}")


def _print_dry_run(config: EvaluationConfig, num_tried: int) -> None:
    from toolrec.evaluation.bill import DOLLARS
    from toolrec.simulation.dry_run import try_few_users

    bill, folder = try_few_users(config, num_tried=num_tried)
    _print_bill(bill)
    if all(estimate.name != DOLLARS for estimate in bill.estimates):
        model = config.llm_model or "the embedded rules"
        typer.echo(f"dollars are not known: no price for {model}; --prices FILE gives one")
    if bill.num_stored_replies:
        typer.echo(f"{bill.num_stored_replies:,} of the calls were answered by stored replies; they count at what they had cost")
    typer.echo(f"dry run's folder: {folder}")


def _print_bill(bill: Bill) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from toolrec.evaluation.bill import DOLLARS
    from toolrec.evaluation.tables import dollars

    table = Table(title=f"Estimate from {bill.num_tried:,} users", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "a user", "95% interval", f"all {bill.num_users:,} users", "95% interval"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for estimate in bill.estimates:
        shown = dollars if estimate.name == DOLLARS else _amount
        cells: list[str] = []
        for factor in (1, bill.num_users):
            cells.append(shown(factor * estimate.mean))
            bounds = () if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)
            cells.append("–".join(shown(factor * bound) for bound in bounds))
        table.add_row(estimate.name, *cells)
    Console(highlight=False).print(table)


def _amount(amount: float | None) -> str:
    return f"{amount:,.1f}" if amount is not None and amount < 100 else f"{amount:,.0f}"
