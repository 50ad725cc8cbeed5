"""Counts the events table with DuckDB and pyarrow and checks the types that other engines rely on.

Usage: check.py <trusted folder> <expected rows>
"""
import sys

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

trusted, expected = sys.argv[1], int(sys.argv[2])
pattern = f"{trusted}/events/domain_event_type=*/**/*.parquet"

table = f"read_parquet('{pattern}', hive_partitioning = true, hive_types = {{'year': VARCHAR, 'month': VARCHAR, 'day': VARCHAR}})"
rows, keys, wrong_day = duckdb.sql(
    f"""SELECT count(*), count(DISTINCT (event_id, timestamp)),
               count(*) FILTER (strftime(timestamp AT TIME ZONE 'UTC', '%Y-%m-%d') <> year || '-' || month || '-' || day)
        FROM {table}"""
).fetchall()[0]
assert (rows, keys, wrong_day) == (expected, expected, 0), (rows, keys, wrong_day)
types = dict((name, kind) for name, kind, *_ in duckdb.sql(f"DESCRIBE SELECT * FROM {table}").fetchall())
assert types["timestamp"] == "TIMESTAMP WITH TIME ZONE" and types["data"] == "VARCHAR", types
assert duckdb.sql(f"SELECT count(*) FROM {table} WHERE NOT json_valid(data)").fetchall() == [(0,)]
# One value that DuckDB cannot read fails the whole query.
duckdb.sql(f"SELECT data->>'$.x', json_extract_string(data, '$.x'), data::JSON FROM {table}").fetchall()

data = ds.dataset(f"{trusted}/events", format="parquet", partitioning="hive")
assert data.count_rows() == expected, data.count_rows()
assert data.schema.field("timestamp").type == pa.timestamp("us", tz="UTC"), data.schema
assert data.schema.field("_offset").type == pa.int64() and data.schema.field("event_id").type == pa.string()
print(f"DuckDB {duckdb.__version__} and pyarrow {pa.__version__} read {rows} rows")
