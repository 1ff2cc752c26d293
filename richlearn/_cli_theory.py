"""`richlearn theory`: exact results as a calculator; it parses and calls."""

from pathlib import Path
from typing import Annotated, Any

import typer

from richlearn._cli_json import Json, print_json
from richlearn.errors import UsageError

theory = typer.Typer(no_args_is_help=True, help="Exact results as a calculator; `richlearn.theory` has all of them.")


def _answer(found: dict[str, Any], as_json: bool, sentence: str) -> None:
    if as_json:
        print_json(found)
        return
    typer.echo(sentence)
    for name, value in found.items():
        if name != "meaning":
            shown = f"{value:.6g}" if isinstance(value, float) else "never" if value is None else value
            typer.echo(f"  {name.replace('_', ' ')}: {[float(f'{x:.6g}') for x in value] if isinstance(value, list) else shown}")


@theory.command("single-neuron")
def theory_single_neuron(
    w0: Annotated[str, typer.Option(help="Numbers such as -1,0: with --delta the function β₀ = a·w at the start, with --a0 w itself.")],
    beta: Annotated[str, typer.Option(help="The target β*, of whitened input.")],
    delta: Annotated[float | None, typer.Option(help="The conserved quantity δ = η_w a² − η_a‖w‖²; a starts positive.")] = None,
    a0: Annotated[float | None, typer.Option(help="The readout a at the start, instead of --delta.")] = None,
    lr_a: Annotated[float, typer.Option(help="Learning rate η_a of the readout.")] = 1.0,
    lr_w: Annotated[float, typer.Option(help="Learning rate η_w of the weights.")] = 1.0,
    plot: Annotated[Path | None, typer.Option(help="Draw the run as PNG.")] = None,
    as_json: Json = False,
) -> None:
    """Is one linear neuron lazy, rich or delayed rich? When does it fit, when does its kernel turn, and how far?"""
    from richlearn import calculator

    exact = calculator.neuron(calculator.vector("--w0", w0), calculator.vector("--beta", beta), delta, a0, lr_a, lr_w)
    found = calculator.single_neuron(exact)
    if plot is not None:
        from richlearn.figures import neuron, save

        try:
            save(neuron(exact), plot)
        except OSError as error:
            raise UsageError(f"`--plot {plot}` cannot be written: {error.strerror}") from None
    _answer(found, as_json, f"δ = {found['delta']:.4g} is {found['regime'].replace('_', ' ')}: {found['meaning']}.")


@theory.command("shape")
def theory_shape(
    dimension: Annotated[int, typer.Argument(help="Inputs d.")],
    width: Annotated[int, typer.Argument(help="Hidden units h.")],
    outputs: Annotated[int, typer.Argument(help="Outputs c.")],
    delta: Annotated[float, typer.Option(help="δ of every unit, against a target of norm 1.")],
    as_json: Json = False,
) -> None:
    """Which regime a two-layer linear network of this shape is in."""
    from richlearn import calculator

    found = calculator.shape(dimension, width, outputs, delta)
    _answer(
        found, as_json, f"A {found['shape'].replace('_', ' ')} at δ = {delta:g} is {found['regime'].replace('_', ' ')}: {found['meaning']}."
    )


@theory.command("unit-delta")
def theory_unit_delta(
    parametrisation: Annotated[str, typer.Argument(help="ntk, mean_field or mup.")],
    fan_in: Annotated[int, typer.Argument(help="Inputs d.")],
    width: Annotated[int, typer.Argument(help="Hidden units h.")],
    fan_out: Annotated[int, typer.Argument(help="Outputs c.")],
    as_json: Json = False,
) -> None:
    """How δ is distributed over the hidden units of a two-layer network at random initialisation."""
    from richlearn import calculator

    found = calculator.unit_delta(parametrisation, fan_in, width, fan_out)
    _answer(found, as_json, f"{100 * found['prob_upstream']:.3g}% of the hidden units start upstream (δ > 0).")
