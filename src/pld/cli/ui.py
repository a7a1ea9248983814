"""`pld ui`."""

import click


@click.command()
@click.option("--port", default=5000, show_default=True, help="Port on this machine's loopback address.")
def ui(port: int) -> None:
    """Open the tracking store in the MLflow UI, on http://127.0.0.1:PORT, until Ctrl-C."""
    from pld.registry.ui import serve_ui

    serve_ui(port)
