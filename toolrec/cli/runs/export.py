"""`toolrec export`: a run for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolrec.cli.places import PLACE
from toolrec.cli.runs.arguments import RunFolder

if TYPE_CHECKING:
    from toolrec.exports.source import Source
    from toolrec.exports.training import TrainingOptions


class Format(StrEnum):
    """What is written."""

    parquet = "parquet"
    csv = "csv"
    chat_jsonl = "chat-jsonl"
    dpo_jsonl = "dpo-jsonl"
    inspect = "inspect"
    otel = "otel"


class Users(StrEnum):
    """A part of the users."""

    train = "train"
    valid = "valid"
    test = "test"
    all = "all"


class Keep(StrEnum):
    """Whose trajectories."""

    hits = "hits"
    finished = "finished"
    all = "all"


class Tracker(StrEnum):
    """Experiment trackers."""

    wandb = "wandb"
    mlflow = "mlflow"


SUFFIXES: Mapping[Format, str] = {
    Format.parquet: "-parquet",
    Format.csv: "-csv",
    Format.chat_jsonl: "-chat.jsonl",
    Format.dpo_jsonl: "-dpo.jsonl",
    Format.inspect: ".eval",
    Format.otel: "-spans.jsonl",
}


def export(
    run: RunFolder,
    kind: Annotated[Format | None, typer.Option("--format", help="What is written.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write, for parquet and csv a folder; default: named after the run, here.")
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(
            **PLACE | {"metavar": "PATH"},
            help="The run's data set, if it has moved: titles, targets and what hit come from it.",
        ),
    ] = None,
    users: Annotated[Users, typer.Option(help="chat-jsonl, dpo-jsonl: which part of the users.")] = Users.train,
    split_seed: Annotated[int, typer.Option(help="chat-jsonl, dpo-jsonl: seed of the users' parts (80, 10, 10 %).")] = 0,
    keep: Annotated[Keep, typer.Option(help="chat-jsonl, dpo-jsonl: whose trajectories.")] = Keep.finished,
    pairs: Annotated[
        str, typer.Option(help="dpo-jsonl: kinds of pairs, comma separated.", metavar="KINDS")
    ] = "reask,outcome,hindsight",
    against: Annotated[
        Path | None,
        typer.Option(**PLACE, help="dpo-jsonl: another run over the same users, for outcome pairs."),
    ] = None,
    otel_endpoint: Annotated[
        str | None,
        typer.Option(help="otel: send the spans to this OTLP/HTTP address, as http://127.0.0.1:4318/v1/traces."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="With --otel-endpoint: go on until the run has ended.")] = False,
    tracker: Annotated[Tracker | None, typer.Option("--push", help="Log figures, settings and report with this tracker.")] = None,
    project: Annotated[str, typer.Option(help="The project (wandb) or experiment (mlflow) of --push.")] = "toolrec",
) -> None:
    """Write a run for other programs: flat tables, fine-tuning data, an inspect_ai log, OpenTelemetry spans, a tracker."""
    from toolrec.errors import ConfigError
    from toolrec.exports.source import Source

    if kind is None and tracker is None:
        raise ConfigError("nothing to export", allowed=f"--format {', '.join(Format)}, or --push {', '.join(Tracker)}")
    if otel_endpoint is not None and kind is not Format.otel:
        raise ConfigError("--otel-endpoint goes with --format otel", value=otel_endpoint)
    if follow and otel_endpoint is None:
        raise ConfigError("--follow needs --otel-endpoint")
    if against is not None and kind is not Format.dpo_jsonl:
        raise ConfigError("--against goes with --format dpo-jsonl", value=str(against))
    source = Source(run, dataset)
    if kind is Format.otel and otel_endpoint is not None:
        if out is not None:
            raise ConfigError("the spans go to --otel-endpoint or to --out, not to both", value=str(out))
        _send_spans(source, otel_endpoint, follow=follow)
    elif kind is not None:
        from toolrec.exports.source import UserSplit
        from toolrec.exports.training import TrainingOptions, pair_kinds

        parts: dict[Users, UserSplit] = {Users.train: "train", Users.valid: "valid", Users.test: "test"}
        options = TrainingOptions(
            user_split=parts.get(users),
            split_seed=split_seed,
            kept=keep.value,
            pairs=pair_kinds(pairs),
        )
        _write(source, kind, out or Path(f"{source.name}{SUFFIXES[kind]}"), options, None if against is None else Source(against))
    if source.missing and kind not in (None, Format.chat_jsonl, Format.dpo_jsonl):
        typer.echo(f"without titles and targets: {source.missing}", err=True)
    if tracker is not None:
        from toolrec.exports.push import push

        typer.echo(f"{tracker.value}: {push(source, tracker.value, project=project)}")


def _send_spans(source: Source, endpoint: str, *, follow: bool) -> None:
    from toolrec.exports.otel import Spans, SpanSender

    sender, spans = SpanSender(endpoint), Spans(source)
    num_users = num_spans = 0
    try:
        for traces in source.followed_traces() if follow else ([trace] for trace in source.traces()):
            made = [span for trace in traces for span in spans.of(trace)]
            sender.send(made)
            num_users, num_spans = num_users + len(traces), num_spans + len(made)
    finally:
        sender.close()
    typer.echo(f"{num_spans:,} spans of {num_users:,} users sent to {endpoint}")


def _write(source: Source, kind: Format, out: Path, options: TrainingOptions, against: Source | None) -> None:
    """Writes one file or folder, whole or not at all."""
    from toolrec.errors import ConfigError
    from toolrec.util.files import atomic_file, atomic_folder

    if out.exists():
        raise ConfigError("something is already there", value=str(out), hint="choose another --out")
    if kind in (Format.parquet, Format.csv):
        from toolrec.exports.tables import write_tables

        with atomic_folder(out.resolve()) as folder:
            num_rows = write_tables(source, folder, "csv" if kind is Format.csv else "parquet")
        typer.echo(f"{out}: {', '.join(f'{count:,} {name}' for name, count in num_rows.items())}")
        return
    with atomic_file(out.resolve()) as file:
        if kind is Format.inspect:
            from toolrec.exports.inspect_log import check_name, write_inspect_log

            said = f"{write_inspect_log(source, file, kind=check_name(out)):,} samples"
        elif kind is Format.otel:
            from toolrec.exports.otel import write_spans

            said = f"{write_spans(source, file):,} spans"
        else:
            from toolrec.exports.training import write_chats, write_pairs

            is_chat = kind is Format.chat_jsonl
            counts = write_chats(source, file, options) if is_chat else write_pairs(source, file, options, against=against)
            num_rows_written = counts.pop("rows", 0)
            rest = "; ".join(f"{name}: {count:,}" for name, count in counts.items())
            said = f"{num_rows_written:,} {'conversations' if is_chat else 'pairs'}" + (f" ({rest})" if rest else "")
    typer.echo(f"{out}: {said}")
    if kind in (Format.chat_jsonl, Format.dpo_jsonl) and source.target_split == "test":
        typer.echo(
            "note: which trajectories count as hits was judged on test targets. Train on runs made with --split valid, and keep "
            "the users of the other parts for evaluation.",
            err=True,
        )
