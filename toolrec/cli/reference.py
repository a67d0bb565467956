"""The reference pages of the documentation, generated: every command and every setting.

`python -m toolrec.cli.reference` prints both.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from toolrec.cli.settings import TREES, SettingsCommand, settings_class
from toolrec.util.settings import Declared, branches_in, declared_in

EXPERIMENT = "toolrec experiment "
SHOWN = "toolrec config show"
"""Its commands have the options of the commands that they are named after."""


def settings_markdown() -> str:
    """One section for each tree of settings, one table for each branch."""
    parts = [
        "# Settings\n",
        "This page is generated from the declarations. A setting without a flag is reached by `--set KEY=VALUE` or in the file "
        "of `--config`, with the same keys. Of several values for one setting the last of these wins: default, file, "
        "environment, command line. `toolrec config show` says where each value comes from; `toolrec config schema` prints "
        "the JSON Schema for editors. Where a description says *changes results*, `--resume` refuses another value. Defaults of "
        "a training that are not shown follow from its recipe.\n",
    ]
    for words, tree in TREES.items():
        title = "the Serve application" if words == "serve" else f"`toolrec {words}`"
        parts += [f"## Settings of {title}\n", *_sections(settings_class(tree))]
    return "\n".join(parts)


def settings_table(settings: Sequence[Declared]) -> str:
    """The table of some settings."""
    rows = [
        (
            "\n".join(f"`{name}`" for name in (one.key, one.argument, one.flag, one.env) if name),
            "required" if one.is_required else _code(one.shown(one.default)),
            _allowed(one),
            " ".join(one.description.split()) + (" Changes results." if one.changes_results else ""),
        )
        for one in settings
    ]
    return _table(("setting", "default", "allowed", "description"), rows)


def cli_markdown() -> str:
    """One section for each command."""
    import typer
    from typer.main import get_command

    from toolrec.cli import build_app

    parts = ["# Command line\n", "This page is generated from the commands. `toolrec COMMAND --help` shows the same.\n"]
    for words, command in _commands("toolrec", get_command(build_app())):
        parts += [f"## {words}\n", inspect.cleandoc(command.help or "") + "\n"]
        context = typer.Context(command, info_name=words)
        parts.append(f"```text\n{context.get_usage().removeprefix('Usage: ')}\n```\n")
        params = command.params
        if words.startswith(EXPERIMENT) and isinstance(command, SettingsCommand):
            parts.append("Takes every option of `toolrec evaluate`, and:\n")
            params = command.own_params
        records = [one.get_help_record(context) for one in params]
        if rows := [_option(name, " ".join(text.split())) for name, text in filter(None, records)]:
            parts.append(_table(("option", "description"), rows))
    return "\n".join(parts)


def _sections(tree: Any) -> Iterator[str]:
    settings, branches = declared_in(tree), branches_in(tree)
    own = [one for one in settings if "." not in one.key]
    if own:
        yield settings_table(own)
    for key, branch in branches.items():
        inside = [one for one in settings if one.key.rpartition(".")[0] == key]
        if inside:
            yield f"### `{key}`\n\n{branch.description}\n\n{settings_table(inside)}"


def _commands(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None or words == SHOWN:
        yield words, command
        return
    for name, child in children.items():
        yield from _commands(f"{words} {name}", child)


def _option(name: str, text: str) -> tuple[str, str]:
    """An option's cells; choices go into the description, for a long list of them would take the table's width."""
    plain, bracket, choices = name.partition(" [")
    if not bracket or "|" not in choices:
        return _code(name), text
    return _code(plain), f"{text} One of {', '.join(_code(choice) for choice in choices.removesuffix(']').split('|'))}."


def _allowed(one: Declared) -> str:
    words = [] if one.type_words.startswith("one of") else [one.type_words]
    return ", ".join([*words, *([one.allowed] if one.allowed and one.allowed not in words else [])])


def _code(text: str) -> str:
    return f"`{text}`" if text and text != "-" else text


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _cell(text: str) -> str:
    """Text that Markdown shows as it is; what stands between backticks stays code."""
    parts = text.replace("|", "\\|").split("`")
    prose = [part.replace("[", "\\[").replace("<", "&lt;").replace("*", "\\*") for part in parts[::2]]
    shown = "`".join(part for pair in zip(prose, [*parts[1::2], ""], strict=False) for part in pair).removesuffix("`")
    return shown.replace("\n", "<br>")


if __name__ == "__main__":
    print(settings_markdown())
    print(cli_markdown())
