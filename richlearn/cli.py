"""The `richlearn` command: it parses, calls, and turns errors into one line and an exit code."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from richlearn._cli_json import Json, print_json
from richlearn._cli_signals import Interrupted, listen
from richlearn._cli_theory import theory
from richlearn.errors import RichlearnError, UsageError, nearest

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="How does initialisation decide whether a network learns features, how much data it needs, how soon it generalises?",
)
app.add_typer(theory, name="theory")

Benchmark = Annotated[str, typer.Argument(metavar="BENCHMARK", help="A name of `richlearn list`, or the path of a YAML file.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the run; default runs/BENCHMARK.")]
Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the protocol, such as training.steps=100.")]
Seeds = Annotated[str | None, typer.Option(help="Seeds instead of the protocol's, such as 0-9 or 0,2,5-7.")]
Scheme = Annotated[list[str], typer.Option("--scheme", metavar="NAME|file.py:Class", help="Add a row for this scheme.")]
Network = Annotated[str | None, typer.Option(metavar="NAME|file.py:Class", help="Another network than the protocol's.")]
Only = Annotated[list[str], typer.Option("--only", metavar="KEY=VALUE", help="Only batches with such a trial: scheme=…, seed=…, tau=….")]
Shard = Annotated[str, typer.Option(metavar="I/N", help="Every N-th batch from the I-th, for N machines that share the folder.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="A minute's version that walks the whole path (folder: runs/BENCHMARK-smoke).")]
Precision = Annotated[str | None, typer.Option(help="32-true or 64-true instead of the protocol's.")]
Strategy = Annotated[str, typer.Option(help="auto: batches side by side; ddp: each trial data-parallel over --devices.")]
Devices = Annotated[str, typer.Option(help="Worker processes (ranks under ddp), or auto.")]


def _protocol(benchmark: str, options: list[str], smoke: bool) -> Any:
    from richlearn.bench.protocol import load
    from richlearn.bench.smoke import smoke as reduced

    protocol = load(benchmark, options)
    return reduced(protocol) if smoke else protocol


def _options(changes: list[str], seeds: str | None, network: str | None, precision: str | None) -> list[str]:
    """All options that change the protocol, as `key=value`."""
    named = {"seeds": seeds, "network.name": network, "training.precision": precision}
    return [*changes, *(f"{key}={value}" for key, value in named.items() if value is not None)]


def _folder(benchmark: str, out: Path | None, smoke: bool = False) -> Path:
    if out is not None:
        return out
    from richlearn.report import default_folder

    return default_folder(benchmark, "-smoke" if smoke else "")


# ---- list ------------------------------------------------------------------------------------------------------------


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(help="benchmarks, schemes, tasks, networks, metrics or predictions; default all.")] = None,
    as_json: Json = False,
) -> None:
    """Every benchmark, scheme, task, network, metric and prediction, with one line of meaning and the paper's figure it reproduces."""
    from richlearn import catalog
    from richlearn.bench import protocol

    kinds = {
        f"{each.kind}s": each.entries for each in (catalog.SCHEMES, catalog.TASKS, catalog.NETWORKS, catalog.METRICS, catalog.PREDICTIONS)
    }
    known = {"benchmarks": protocol.names, **kinds}
    if kind is not None and kind not in known:
        raise UsageError(f"unknown kind `{kind}`; {nearest(kind, known)}")
    found = {name: entries() for name, entries in known.items() if kind in (None, name)}
    if as_json:
        print_json({k: {n: {"summary": e.summary, "figure": e.figure} for n, e in entries.items()} for k, entries in found.items()})
        return
    for name, entries in found.items():
        typer.echo(f"{name}:")
        width = max((len(entry) for entry in entries), default=0)
        for title, entry in entries.items():
            typer.echo(f"  {title:<{width}}  {entry.summary}" + (f" (figure {entry.figure})" if entry.figure else ""))


# ---- plan and run ----------------------------------------------------------------------------------------------------


def _settings(**values: Any) -> Any:
    from richlearn.bench.plan import Selection
    from richlearn.bench.runner import Settings

    selection = Selection(tuple(values.pop("only")), values.pop("shard"))
    return Settings(selection=selection, schemes=tuple(values.pop("schemes")), **values)


@app.command()
def plan(
    benchmark: Benchmark,
    out: Out = None,
    seeds: Seeds = None,
    changes: Set = [],  # noqa: B006 (typer reads the default)
    only: Only = [],  # noqa: B006
    scheme: Scheme = [],  # noqa: B006
    network: Network = None,
    precision: Precision = None,
    strategy: Strategy = "auto",
    devices: Devices = "auto",
    shard: Shard = "1/1",
    smoke: Smoke = False,
    as_json: Json = False,
) -> None:
    """What `run` would do: batches done, missing, failed or stale, and their cost. Runs nothing, writes nothing."""
    protocol = _protocol(benchmark, _options(changes, seeds, network, precision), smoke)  # errors before slow imports

    from richlearn.bench.estimate import estimate
    from richlearn.bench.folder import RunFolder
    from richlearn.bench.runner import Runner

    settings = _settings(only=only, shard=shard, schemes=scheme, strategy=strategy, devices=devices)
    runner = Runner(protocol, RunFolder(_folder(benchmark, out, smoke)), settings)
    runner.folder.check_owner(protocol.hash, protocol.resolved_yaml())
    runner.check()
    found = runner.plan(repair=False)
    todo = runner.selected(found)
    summary = _plan_summary(runner, found, todo, estimate(todo))
    if as_json:
        print_json(summary | {"batch_list": [_plan_line(item) for item in found.planned]})
    else:
        _print_plan(summary, [_plan_line(item) for item in found.planned])


def _plan_summary(runner: Any, found: Any, todo: list[Any], cost: Any) -> dict[str, Any]:
    return {
        "benchmark": runner.protocol.name,
        "folder": str(runner.folder.path),
        "steps": runner.protocol.budget(),
        "trials": len(found.trials),
        "batches": len(found.batches),
        **{state: found.count(state) for state in ("done", "missing", "failed")},
        "after_search": found.after_search,
        "stale": found.stale,
        "to_train_now": sum(len(batch.trials) for batch in todo),
        "core_hours": round(cost.core_hours, 3),
        "memory_mb": round(cost.memory / 1e6),
        "disk_mb": round(cost.disk / 1e6, 1),
    }


def _plan_line(item: Any) -> dict[str, Any]:
    batch = item.batch
    return {
        "hash": batch.hash,
        "state": item.state,
        "role": batch.role,
        "seed": batch.seed,
        **({} if batch.trials[0].train_size is None else {"train_size": batch.trials[0].train_size}),
        "trials": [trial.row.label for trial in batch.trials],
    }


def _print_plan(plan: dict[str, Any], lines: list[dict[str, Any]]) -> None:
    typer.echo("{benchmark}: {trials} trials in {batches} batches (at most {steps} updates each) → {folder}".format(**plan))
    typer.echo("  done {done}, missing {missing}, failed {failed}; {after_search} scored trials after search".format(**plan))
    for line in plan["stale"]:
        typer.echo(f"  stale: {line}")
    typer.echo(
        "  to train now: {to_train_now} trials, about {core_hours:.2g} core-hours on a CPU (within a factor of 2), "
        "{memory_mb} MB a worker beyond the imports, {disk_mb} MB of records".format(**plan)
    )
    for line in lines:
        labels = line["trials"]
        span = labels[0] if len(labels) == 1 else f"{labels[0]} … {labels[-1]}"
        head = f"{line['hash'][:16]}  {line['state']:<7}  {line['role']:<6}  seed {line['seed']:<5}"
        typer.echo(f"  {head} {len(labels):>4} networks  {span}")


@app.command()
def run(
    benchmark: Benchmark,
    out: Out = None,
    seeds: Seeds = None,
    changes: Set = [],  # noqa: B006
    only: Only = [],  # noqa: B006
    scheme: Scheme = [],  # noqa: B006
    network: Network = None,
    accelerator: Annotated[str, typer.Option(help="Lightning's: auto, cpu, gpu, cuda, mps.")] = "auto",
    devices: Devices = "auto",
    strategy: Strategy = "auto",
    precision: Precision = None,
    shard: Shard = "1/1",
    smoke: Smoke = False,
    save_weights: Annotated[bool, typer.Option("--save-weights", help="Keep each trial's final weights.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first batch that fails.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try batches again that failed before.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Train what is missing, record it, rank it, draw it. The same command goes on after an interruption."""
    protocol = _protocol(benchmark, _options(changes, seeds, network, precision), smoke)  # errors before slow imports

    from richlearn.bench import leaderboard as boards
    from richlearn.bench.folder import RunFolder
    from richlearn.bench.runner import Runner
    from richlearn.report import carry_out

    settings = _settings(
        only=only, shard=shard, schemes=scheme, accelerator=accelerator, devices=devices, strategy=strategy,
        save_weights=save_weights, fail_fast=fail_fast, retry_failed=retry_failed, quiet=quiet,
    )  # fmt: skip
    results = carry_out(Runner(protocol, RunFolder(_folder(benchmark, out, smoke)), settings))
    if quiet or results.trials.empty:
        return
    typer.echo(boards.render(results.leaderboard()))
    typer.echo(f"\nleaderboard: {results.folder.leaderboard}")
    if drawn := [str(path) for name in protocol.figures if (path := results.folder.figure(name)).is_file()]:
        typer.echo(f"pictures:    {', '.join(drawn)}")
    typer.echo(f"tensorboard: tensorboard --logdir {results.folder.tensorboard}")


# ---- results ---------------------------------------------------------------------------------------------------------


@app.command()
def leaderboard(
    benchmark: Benchmark,
    out: Out = None,
    check: Annotated[bool, typer.Option("--check", help="Only validate the CSV and compare it with its records; writes nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Rebuild the CSV from the records and print it; with --check, prove that the CSV is valid and what they give."""
    from richlearn.bench import leaderboard as boards
    from richlearn.report import Results

    results = Results(_folder(benchmark, out))
    for problem in results.contents.problems:
        typer.echo(f"note: {problem}", err=True)
    if check:
        if problems := results.check_leaderboard():
            raise UsageError("\n".join(problems))
        typer.echo(f"{results.folder.leaderboard}: valid, and what the records give")
        return
    path = results.write_leaderboard()
    if as_json:
        print_json(json.loads(results.leaderboard().to_json(orient="records")))
        return
    typer.echo(boards.render(results.leaderboard()))
    typer.echo(f"\nleaderboard: {path}")


@app.command()
def plot(benchmark: Benchmark, out: Out = None) -> None:
    """Draw the protocol's figures as PNG, and write TensorBoard's runs, from the records."""
    from richlearn.report import Results

    results = Results(_folder(benchmark, out))
    for path in results.plot():
        typer.echo(path)
    typer.echo(f"tensorboard --logdir {results.write_tensorboard()}")


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="TRIAL|ROW", help="A trial's hash, or its first digits, or a row: 'unbalanced(tau=0.1, delta=1)'.")
    ],
    out: Annotated[Path, typer.Option(help="A run's folder, or a folder of such.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """Everything behind a number: trials, curve, protocol, seeds, commit, hardware and the command."""
    from richlearn.lookup import look_up, run_folders

    found = look_up(name, run_folders(out))
    if as_json:
        print_json(found)
        return
    for trial in found:
        typer.echo(f"trial {trial['trial']}")
        for key, value in trial.items():
            if key not in ("trial", "spec", "curve", "environment", "parameters"):
                typer.echo(f"  {key}: {value}")
        for key, value in [*trial["spec"].items(), *trial["environment"].items()]:
            typer.echo(f"  {key}: {json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value}")
        for row in trial.get("curve", []):
            typer.echo("  " + "  ".join(f"{key}={value:.5g}" for key, value in row.items() if value is not None))


@app.command()
def check(
    kind: Annotated[str, typer.Argument(help="scheme or network.")],
    target: Annotated[str, typer.Argument(metavar="NAME|file.py:Class")],
) -> None:
    """Run the shared contract tests on a component of your own."""
    from richlearn import catalog

    kinds = {each.kind: each for each in (catalog.SCHEMES, catalog.NETWORKS)}
    if kind not in kinds:
        raise UsageError(f"unknown kind `{kind}`; {nearest(kind, kinds)}")
    component = kinds[kind].load(target)
    if kind == "scheme":
        from richlearn.schemes.contract import check as contract
    else:
        from richlearn.networks.contract import check as contract
    if findings := contract(component):
        raise UsageError("\n".join(f"{target}: {finding}" for finding in findings))
    typer.echo(f"{target}: keeps the {kind} contract")


def main() -> None:
    """Exit codes: 0 complete, 1 a batch failed or could not be written, 2 bad usage or protocol, 130 or 143 interrupted."""
    listen()
    try:
        app()
    except RichlearnError as error:
        typer.echo("\n".join(f"error: {line}" for line in str(error).splitlines()), err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except Interrupted as stop:
        typer.echo(f"interrupted ({stop}): finished batches are recorded; the same command goes on", err=True)
        sys.exit(128 + stop.number)


if __name__ == "__main__":
    main()
