"""`pld`: the commands that a person starts. Each is imported when it is asked for, so that `pld --help` is instant."""

import importlib
import sys
from collections.abc import Sequence

import click

from pld.errors import PldError

COMMANDS = {
    "new-task": ("pld.cli.new_task", "A file of labelled examples: what is in it, a task in conf/, the next command."),
    "estimate": ("pld.cli.estimate", "What the Teacher's calls will cost, before any is made."),
    "summary": ("pld.cli.summary", "What the last run reached, against its baselines."),
    "explain": ("pld.cli.explain", "Where an instruction comes from and what it does; or what became of an example."),
    "ablate": ("pld.cli.ablate", "What each instruction of the prompt does on validation, and which could go."),
    "doubts": ("pld.cli.doubts", "Training examples whose label the Teacher doubts, for a person to review."),
    "review": ("pld.cli.review", "Instructions as a sheet for people to decide on; their decisions, kept for good."),
    "diff": ("pld.cli.diff", "Two prompts or versions: which instructions, and which answers, differ."),
    "status": ("pld.cli.registry", "Registered versions, their aliases, figures and gates."),
    "promote": ("pld.cli.registry", "Make the candidate (or a version) production, if the gates hold."),
    "rollback": ("pld.cli.registry", "Make the previous production version production again."),
    "history": ("pld.cli.registry", "Every move of an alias: when, what, by whom and why."),
    "classify": ("pld.cli.classify", "A file's rows by a registered version, resumable."),
    "export": ("pld.cli.export", "A version's prompt as another runtime wants it."),
    "monitor": ("pld.cli.monitor", "What was served against what was measured: drift, and the least certain inputs."),
    "data": ("pld.cli.data", "The data set: what changed since a revision; new examples from what was served."),
    "teacher": ("pld.cli.teacher", "The Teacher's answers: what they cost; export and import."),
    "ui": ("pld.cli.ui", "Open the tracking store in the MLflow UI."),
}


class LazyGroup(click.Group):
    """Lists commands with their one line from `COMMANDS`; imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def pld() -> None:
    """Prompt-Level Distillation: labelled data and a Teacher, compiled into a small Student's system prompt.

    The pipeline itself runs with `dvc repro`.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; a PldError is one line and exit status 1."""
    try:
        pld.main(args=list(arguments) if arguments is not None else None, prog_name="pld")
    except PldError as error:
        print(f"pld: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
