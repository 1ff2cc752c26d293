"""How commands answer programs."""

import json
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def print_json(data: Any) -> None:
    """Print `data` as JSON."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))
