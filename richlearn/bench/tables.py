"""The two tables of a record: their columns, types and units, fixed in an explicit Arrow schema."""

from collections.abc import Collection

import pandas as pd
import pyarrow as pa

VERSION = 1

# name: (type, unit, meaning); a missing value means "not measured" or "not reached", as the column says.
_TRIALS = {
    "trial": (pa.string(), "", "SHA-256 of the trial's canonical content"),
    "cell": (pa.string(), "", "the same without the seed: a row of the leaderboard, or one training size of it"),
    "batch": (pa.string(), "", "hash of the batch that trained it"),
    "benchmark": (pa.string(), "", "name of the protocol"),
    "protocol_hash": (pa.string(), "", "hash of the protocol without seeds, selection and device"),
    "role": (pa.string(), "", "score, or search (a learning-rate trial that no score uses)"),
    "seed": (pa.int64(), "", "fixes data, teacher, base initialisation and order"),
    "scheme": (pa.string(), "", "name of the scheme"),
    "parameters": (pa.string(), "", "the scheme's parameters, canonical JSON"),
    "network": (pa.string(), "", "name of the network"),
    "task": (pa.string(), "", "name of the task"),
    "lr": (pa.float64(), "", "base learning rate"),
    "steps": (pa.int64(), "updates", "the budget"),
    "precision": (pa.string(), "", "Lightning's name of it"),
    "compiled": (pa.bool_(), "", "whether the step was compiled"),
    "status": (pa.string(), "", "finished, diverged or not_applicable"),
    "reason": (pa.string(), "", "why it is not finished"),
    "diverged_at": (pa.int64(), "updates", "first update after which loss or parameters are not finite"),
    "zero_loss": (pa.float64(), "", "test loss of the zero predictor"),
    "initial_train_loss": (pa.float64(), "", "before the first update"),
    "train_loss": (pa.float64(), "", "at the end of the run"),
    "test_loss": (pa.float64(), "", "at the end of the run"),
    "train_size": (pa.int64(), "samples", "of the training set, where the protocol has several sizes"),
    "train_accuracy": (pa.float64(), "", "of a classification, at the end of the run"),
    "test_accuracy": (pa.float64(), "", "of a classification, at the end of the run"),
    "best_test_accuracy": (pa.float64(), "", "the best of all checks: chosen on the test set, so optimistic"),
    "stopped_at": (pa.int64(), "updates", "where the run ended before its budget"),
    "first_reached": (pa.int64(), "updates", "first check at which the goal holds; missing: beyond the budget"),
    "sustained_reached": (pa.int64(), "updates", "first check from which it holds for as many checks as the protocol says"),
    "fit_first_reached": (pa.int64(), "updates", "first check at which the training set's accuracy reaches the goal's threshold"),
    "fit_sustained_reached": (pa.int64(), "updates", "first check from which it does for as many checks as the protocol says"),
    "measured_at": (
        pa.int64(),
        "updates",
        "measurement that the next columns come from: the first at or after the sustained step, else the last",
    ),
    "kernel_distance": (pa.float64(), "", "traced NTK on the probe, against initialisation"),
    "hamming_distance": (pa.float64(), "", "share of (unit, input) pairs"),
    "parameter_distance": (pa.float64(), "", "‖θ − θ₀‖ / ‖θ₀‖"),
    "delta_init": (pa.float64(), "", "mean δ over hidden units at initialisation; missing: no such units"),
    "delta_drift": (pa.float64(), "", "‖δ − δ₀‖ / ‖κ₀‖ over hidden units"),
    "prediction_error": (pa.float64(), "", "of theory, over the whole run: largest ‖observed − predicted‖ / largest ‖predicted‖"),
    "regime": (pa.string(), "", "aligned_not_fitted, lazy, rich or delayed_rich"),
    "regime_note": (pa.string(), "", "large parameter but small kernel motion is flagged here"),
    "spec": (pa.string(), "", "the trial's whole content, canonical JSON"),
}
_CURVES = {
    "trial": (pa.string(), "", "SHA-256 of the trial's canonical content"),
    "step": (pa.int64(), "updates", "optimiser updates done"),
    "train_loss": (pa.float64(), "", "on the whole training set"),
    "test_loss": (pa.float64(), "", "on the whole test set"),
    "train_accuracy": (pa.float64(), "", "on the whole training set"),
    "test_accuracy": (pa.float64(), "", "on the whole test set"),
    "kernel_distance": (pa.float64(), "", "traced NTK on the probe, against initialisation; missing: not measured at this step"),
    "hamming_distance": (pa.float64(), "", "share of (unit, input) pairs"),
    "parameter_distance": (pa.float64(), "", "‖θ − θ₀‖₂"),
    "parameter_distance_relative": (pa.float64(), "", "‖θ − θ₀‖₂ / ‖θ₀‖₂"),
    "delta_mean": (pa.float64(), "", "mean δ over hidden units"),
    "delta_std": (pa.float64(), "", "standard deviation of δ over hidden units"),
    "delta_drift": (pa.float64(), "", "‖δ − δ₀‖ / ‖κ₀‖ over hidden units"),
    "delta": (pa.list_(pa.float32()), "", "δ of each hidden unit"),
    "directions": (pa.list_(pa.float32()), "", "|a_k| w_k of each hidden unit, flattened; only where the protocol asks for it"),
    "observed": (pa.map_(pa.string(), pa.float64()), "", "what the protocol's prediction speaks of, as it was measured"),
    "predicted": (pa.map_(pa.string(), pa.float64()), "", "the same by theory"),
}
# Columns that stand in a record only where something was predicted, classified, stopped, or has several training sets.
_OPTIONAL = {
    "prediction_error",
    "observed",
    "predicted",
    "train_size",
    "train_accuracy",
    "test_accuracy",
    "best_test_accuracy",
    "fit_first_reached",
    "fit_sustained_reached",
    "stopped_at",
}


def _schema(columns: dict, table: str) -> pa.Schema:
    fields = [pa.field(name, kind, metadata={"unit": unit, "meaning": meaning}) for name, (kind, unit, meaning) in columns.items()]
    return pa.schema(fields, metadata={"richlearn_table": table, "version": str(VERSION)})


TRIALS = _schema(_TRIALS, "trials")
CURVES = _schema(_CURVES, "curves")


def without(schema: pa.Schema, names: Collection[str]) -> pa.Schema:
    """`schema` without the columns `names`."""
    return pa.schema([each for each in schema if each.name not in names], metadata=schema.metadata)


def complete(table: pa.Table, schema: pa.Schema) -> pa.Table | None:
    """`table` with all columns of `schema`, optional ones that it lacks as missing values; None if it is no such table."""
    away = _OPTIONAL & (set(schema.names) - set(table.schema.names))
    if not table.schema.equals(without(schema, away)):
        return None
    for name in away:
        table = table.append_column(schema.field(name), pa.nulls(len(table), schema.field(name).type))
    return table.select(schema.names).replace_schema_metadata(schema.metadata)


def to_arrow(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """`frame` as an Arrow table of `schema`; absent columns become missing values or, if optional, stay away; extra ones are an error."""
    if extra := set(frame.columns) - set(schema.names):
        raise ValueError(f"columns {sorted(extra)} are not in the schema of `{schema.metadata[b'richlearn_table'].decode()}`")
    away = [name for name in schema.names if name in _OPTIONAL and name not in frame.columns]
    schema = without(schema, away)
    absent = dict.fromkeys(set(schema.names) - set(frame.columns))
    table = pa.Table.from_pandas(frame.assign(**absent), schema=schema, preserve_index=False)
    return table.replace_schema_metadata(schema.metadata)


def to_frame(table: pa.Table) -> pd.DataFrame:
    """`table` as pandas; integers stay integers where values are missing (`Int64`)."""
    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
