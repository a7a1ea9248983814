"""The `pld` command. Subcommands are imported on use, so that `pld --help` is instant."""

import importlib
import sys
from collections.abc import Sequence

import click

from pld.errors import PldError, fault_of_machine

COMMANDS = {
    "new-task": ("pld.cli.new_task", "Check a file of labelled examples and write its task into conf/."),
    "estimate": ("pld.cli.estimate", "Estimate what the Teacher's calls will cost, without making any."),
    "summary": ("pld.cli.summary", "Show the last run's result against its baselines."),
    "explain": ("pld.cli.explain", "Trace an instruction, rule, example or Edit through the pipeline."),
    "ablate": ("pld.cli.ablate", "Measure the effect of each instruction on validation."),
    "doubts": ("pld.cli.doubts", "List training examples whose label the Teacher doubts."),
    "review": ("pld.cli.review", "Have people review the instructions, and record their decisions."),
    "diff": ("pld.cli.diff", "Compare the instructions and answers of two prompts or versions."),
    "status": ("pld.cli.registry", "Show registered versions with their aliases, figures and gates."),
    "promote": ("pld.cli.registry", "Move a version to production if its gates pass."),
    "rollback": ("pld.cli.registry", "Swap production and previous."),
    "history": ("pld.cli.registry", "Show every move of production: when, what, who and why."),
    "classify": ("pld.cli.classify", "Classify the rows of a file with a registered version; resumable."),
    "export": ("pld.cli.export", "Write a version's prompt in the format of another runtime."),
    "monitor": ("pld.cli.monitor", "Detect drift between served and measured answers."),
    "data": ("pld.cli.data", "Compare the data with a revision, or add examples from a serving log."),
    "teacher": ("pld.cli.teacher", "Show what the Teacher cost; export and import its answers."),
    "ui": ("pld.cli.ui", "Open the tracking store in the MLflow UI."),
}


class LazyGroup(click.Group):
    """Lists commands with their help line from `COMMANDS`; imports a command only to run it."""

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
    """Prompt-Level Distillation: compile labelled data and a Teacher into a small Student's system prompt.

    Run the pipeline with `dvc repro`.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Prints a PldError or OSError as one line and exits with status 1."""
    try:
        pld.main(args=list(arguments) if arguments is not None else None, prog_name="pld")
    except PldError as error:
        print(f"pld: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(f"pld: {fault_of_machine(error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
