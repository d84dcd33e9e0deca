"""Reads and writes the Arrow file of a cache with other programs: pyarrow and polars.

    python cache_export.py read EXPORT            prints what each program finds in the file
    python cache_export.py write EXPORT FOLDER    writes files of the same form, and prints the keys in each
    python cache_export.py wrong EXPORT FOLDER    writes files that are no exports, and one that has damaged rows

scripts/fetch-clients makes the Python that has these programs. The last line of stdout is a JSON object:

    read     {"batches": number, "found": {program: {"columns": {name: type}, "metadata": {...}, "rows": {key: row}}}}
    write    {file: [keys]}
    wrong    {"damaged": [keys]}: the rows that are damaged in the file damaged.arrow

Keys are hex digits, and days are numbers since 1970-01-01.
"""

import datetime
import json
import pathlib
import sys

import polars
import pyarrow
from pyarrow import feather, ipc

EPOCH = datetime.date(1970, 1, 1)
COLUMNS = ["key", "space", "day", "truncated", "half", "vector"]


# ---- reading ---------------------------------------------------------------------------------------------------------


def rows_of(columns: dict[str, list]) -> dict[str, dict]:
    """The rows by key, in a form that JSON has."""
    assert list(columns) == COLUMNS, f"the columns are {list(columns)}"
    rows = {}
    for key, space, day, truncated, half, vector in zip(*columns.values(), strict=True):
        day = None if day is None else (day - EPOCH).days
        row = {"space": space, "day": day, "truncated": truncated, "half": half, "vector": [float(x) for x in vector]}
        assert rows.setdefault(key.hex(), row) is row, f"the key {key.hex()} is there twice"
    return rows


def of_table(table: pyarrow.Table) -> dict:
    table.validate(full=True)
    schema = table.schema
    types = {field.name: f"{field.type}{'' if field.nullable else ' not null'}" for field in schema}
    metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    return {"columns": types, "metadata": metadata, "rows": rows_of(table.to_pydict())}


def of_frame(frame: polars.DataFrame) -> dict:
    types = {name: str(kind) for name, kind in frame.schema.items()}
    return {"columns": types, "metadata": {}, "rows": rows_of(frame.to_dict(as_series=False))}


def read(path: str) -> dict:
    with ipc.open_file(path) as file:
        batches = file.num_record_batches
        found = {"pyarrow.ipc": of_table(file.read_all())}
    found["pyarrow.feather"] = of_table(feather.read_table(path))
    found["polars.read_ipc"] = of_frame(polars.read_ipc(path))
    found["polars.scan_ipc"] = of_frame(polars.scan_ipc(path).select(COLUMNS).collect())
    return {"batches": batches, "found": found}


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_file(path: pathlib.Path, table: pyarrow.Table, rows_per_batch: int | None = None, **options) -> None:
    with ipc.new_file(path, table.schema, options=ipc.IpcWriteOptions(**options)) as file:
        file.write_table(table, max_chunksize=rows_per_batch)


def without_metadata(table: pyarrow.Table) -> pyarrow.Table:
    """The same rows, with all columns nullable, in the types that pyarrow takes for them, and a column more."""
    schema = pyarrow.schema(
        [
            ("more", pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
            ("key", pyarrow.binary(32)),
            ("space", pyarrow.string()),
            ("day", pyarrow.date32()),
            ("truncated", pyarrow.bool_()),
            ("half", pyarrow.bool_()),
            ("vector", pyarrow.list_(pyarrow.float32())),
        ]
    )
    return pyarrow.table({"more": ["a word"] * len(table), **table.to_pydict()}, schema=schema)


def write(export: str, folder: str) -> dict:
    folder = pathlib.Path(folder)
    table = feather.read_table(export)
    files = {}

    def note(name: str, table: pyarrow.Table) -> pathlib.Path:
        files[name] = [key.hex() for key in table["key"].to_pylist()]
        return folder / name

    # Every third row, backwards, in many batches, with the columns in another order.
    some = table.take(list(range(len(table) - 1, -1, -3))).select(COLUMNS[::-1])
    write_file(note("some.arrow", some), some, rows_per_batch=7)
    # As one batch that is a part of a larger one.
    part = table.combine_chunks().slice(5, 20)
    write_file(note("part.arrow", part), part)
    feather.write_feather(table, note("feather.arrow", table), compression="uncompressed")
    plain = without_metadata(table)
    write_file(note("plain.arrow", plain), plain)
    # polars has no arrays of a fixed size in its columns of bytes: pyarrow makes them again.
    filtered = polars.read_ipc(export).filter(polars.col("half") & ~polars.col("truncated")).to_arrow()
    filtered = filtered.cast(table.schema)
    write_file(note("polars.arrow", filtered), filtered)
    none = table.slice(0, 0)
    write_file(note("none.arrow", none), none)
    return files


# ---- wrong files -----------------------------------------------------------------------------------------------------


def changed(table: pyarrow.Table, name: str, values, kind: pyarrow.DataType) -> pyarrow.Table:
    """The same table with another column in the place of one."""
    return table.set_column(table.column_names.index(name), pyarrow.field(name, kind), pyarrow.array(values, kind))


def wrong_files(table: pyarrow.Table, export: str, folder: pathlib.Path) -> None:
    def save(name: str, table: pyarrow.Table, **options) -> None:
        write_file(folder / f"{name}.arrow", table, **options)

    keys, vectors = table["key"].to_pylist(), table["vector"].to_pylist()
    save("renamed", table.rename_columns([name.replace("vector", "embedding") for name in COLUMNS]))
    save("fewer", table.drop_columns(["half"]))
    save("key-width", changed(table, "key", [key[:16] for key in keys], pyarrow.binary(16)))
    save("key-type", changed(table, "key", keys, pyarrow.binary()))
    save("doubles", changed(table, "vector", vectors, pyarrow.list_(pyarrow.float64())))
    save("large-list", changed(table, "vector", vectors, pyarrow.large_list(pyarrow.float32())))
    save("newer", table.replace_schema_metadata({"docvector_embed.cache": "2"}))
    save("no-key", changed(table, "key", [*keys[:20], None, *keys[21:]], pyarrow.binary(32)))
    save("lz4", table, compression="lz4")
    save("zstd", table, compression="zstd")
    feather.write_feather(table, folder / "feather-default.arrow")
    polars.read_ipc(export).write_ipc(folder / "polars-own.arrow")
    with ipc.new_stream(folder / "stream.arrow", table.schema) as stream:
        stream.write_table(table)
    (folder / "empty.arrow").write_bytes(b"")
    (folder / "text.arrow").write_text("key,space,day,truncated,half,vector\n" * 100)


def damaged_rows(table: pyarrow.Table, path: pathlib.Path) -> list[str]:
    """Writes a file where some rows are damaged, each in its way; returns their keys."""
    columns = table.to_pydict()
    wrongs = [
        ("vector", None),
        ("vector", []),
        ("vector", [0.5, None]),
        ("vector", [0.5, float("nan")]),
        ("vector", [float("inf"), 0.5]),
        ("truncated", None),
        ("half", None),
        ("space", "no id of a space"),
        ("space", ""),
        ("day", EPOCH - datetime.timedelta(days=1)),
    ]
    damaged = []
    for place, (name, value) in enumerate(wrongs):
        columns[name][3 * place + 1] = value
        damaged.append(columns["key"][3 * place + 1].hex())
    types = without_metadata(table).schema.remove(0)
    write_file(path, pyarrow.table(columns, schema=types))
    return damaged


def wrong(export: str, folder: str) -> dict:
    table = feather.read_table(export)
    damaged = damaged_rows(table, pathlib.Path(folder) / "damaged.arrow")
    wrong_files(table, export, pathlib.Path(folder))
    return {"damaged": damaged}


CASES = {"read": read, "write": write, "wrong": wrong}


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in CASES:
        sys.exit("usage: cache_export.py read EXPORT, or cache_export.py write|wrong EXPORT FOLDER")
    print(json.dumps(CASES[sys.argv[1]](*sys.argv[2:])))
