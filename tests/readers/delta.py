"""Reads the Delta table of events with deltalake, DuckDB and polars.

delta.py count <table> <expected>   each of them counts <expected> rows, finds every key once, and reads few files for one type and day
delta.py watch <table> <stop>       until the file <stop> exists: no count of any of them ever goes back, and no row is there twice
"""
import glob
import os
import sys

import deltalake
import duckdb
import duckdb_extension_delta
import polars as pl

mode, root, argument = sys.argv[1:]
folder = os.path.dirname(duckdb_extension_delta.__file__)
(extension,) = glob.glob(f"{folder}/**/*.duckdb_extension", recursive=True)
connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
connection.execute(f"LOAD '{extension}'")
scan = f"delta_scan('{root}')"


def in_duckdb():
    return connection.execute(f"SELECT count(*), count(DISTINCT (_partition, _offset)) FROM {scan}").fetchall()[0]


def in_polars():
    keys = pl.struct("_partition", "_offset")
    return pl.scan_delta(root).select(pl.len(), keys.n_unique().alias("keys")).collect().row(0)


def in_deltalake():
    table = deltalake.DeltaTable(root)
    actions = table.get_add_actions(flatten=True)
    rows = sum(value or 0 for value in actions["num_records"].to_pylist())
    return rows, rows


READERS = {"deltalake": in_deltalake, "duckdb": in_duckdb, "polars": in_polars}

if mode == "watch":
    seen, looks = dict.fromkeys(READERS, 0), 0
    while not os.path.exists(argument):
        for name, read in READERS.items():
            rows, keys = read()
            assert rows == keys, f"{name}: {rows} rows with {keys} places in the log"
            assert rows >= seen[name], f"{name}: {rows} rows after {seen[name]}"
            seen[name], looks = rows, looks + 1
    print(f"{looks} looks, {seen}")
else:
    expected = int(argument)
    for name, read in READERS.items():
        assert read() == (expected, expected), (name, read(), expected)
    table = deltalake.DeltaTable(root)
    fields = {field.name: str(field.type) for field in table.schema().fields}
    assert "timestamp" in fields["timestamp"] and "long" in fields["_offset"] and "integer" in fields["day"], fields
    by_type = connection.execute(f"SELECT domain_event_type, count(*) FROM {scan} GROUP BY ALL ORDER BY ALL").fetchall()
    kinds = pl.scan_delta(root).group_by("domain_event_type").len().sort("domain_event_type").collect().rows()
    assert kinds == by_type, (kinds, by_type)
    for kind, rows in by_type:
        found = pl.scan_delta(root).filter(pl.col("domain_event_type") == kind).select(pl.len()).collect().item()
        asked = connection.execute(f"SELECT count(*) FROM {scan} WHERE domain_event_type = ?", [kind]).fetchall()
        assert found == rows and asked == [(rows,)], (kind, rows, found, asked)
    print(f"{expected} rows of {len(by_type)} types, version {table.version()}, {len(table.file_uris())} files")
