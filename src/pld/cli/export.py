"""`pld export`: print a prompt in another runtime's format."""

import sys
from pathlib import Path

import click

from pld.artifacts import write_text
from pld.serving.export import FORMATS, exported, label_tokens, notes

ARTIFACTS = Path("artifacts")


@click.command()
@click.option("--alias", help="Registered version by alias, e.g. production.")
@click.option("--version", "number", type=int, help="Registered version by number.")
@click.option("--format", "format", type=click.Choice(list(FORMATS)), default="text", show_default=True)
@click.option("--model", help="The model's name in the runtime (default: the Student's).")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write instead of standard output."
)
def export(alias: str | None, number: int | None, format: str, model: str | None, out: Path | None) -> None:
    """Print a prompt byte for byte: of a registered version, or (default) what ships now.

    text is the prompt and nothing else; json has all that answers depend on; the others are what their runtimes take,
    with how an input becomes the user's turn and how the label is read. A prompt that a format can't express is
    refused.
    """
    if alias is not None and number is not None:
        raise click.UsageError("expected --alias or --version, got both")
    from pld.config.settings import load_config
    from pld.registry.release import fetch_release, read_release

    config = load_config()
    alias_or_number = alias if number is None else str(number)
    release = read_release(config, ARTIFACTS) if alias_or_number is None else fetch_release(config, alias_or_number)
    tokens = label_tokens(release, format)
    text = exported(release, format, model, tokens)
    if out is None:
        sys.stdout.buffer.write(text.encode())
    else:
        write_text(out, text)
    for line in notes(release, format, model, tokens):
        click.echo(f"pld: {line}", err=True)
