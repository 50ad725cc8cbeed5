"""Checks the statements of `ddl`.

Usage: ddl.py parse <dialect>            reads {"statements": [{"sql": ...}]} on stdin, and parses each
       ddl.py duckdb <table> <expected>  … runs each in DuckDB and compares the views with the files
"""
import json
import sys

statements = [statement["sql"] for statement in json.load(sys.stdin)["statements"]]
assert statements, "no statements"
if sys.argv[1] == "parse":
    import re

    import sqlglot
    from sqlglot import exp

    for sql in statements:
        # Kinds of statements that sqlglot does not know.
        if re.match(r"CALL |CREATE OR REPLACE (EXTERNAL VOLUME|CATALOG INTEGRATION|ICEBERG TABLE) ", sql):
            continue
        # Clauses of BigQuery that sqlglot does not know.
        sql = re.sub(r"WITH (PARTITION COLUMNS \([^)]*\)|CONNECTION `[^`]*`)", "", sql)
        (tree,) = [tree for tree in sqlglot.parse(sql, dialect=sys.argv[2]) if tree]
        # What sqlglot does not understand it keeps as text.
        assert isinstance(tree, exp.Create) and not list(tree.find_all(exp.Command)), (sys.argv[2], sql)
else:
    import duckdb

    try:
        import glob
        import os

        import duckdb_extension_delta

        connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
        (extension,) = glob.glob(f"{os.path.dirname(duckdb_extension_delta.__file__)}/**/*.duckdb_extension", recursive=True)
        connection.execute(f"LOAD '{extension}'")
    except ImportError:
        connection = duckdb.connect()
    table, expected = sys.argv[2], int(sys.argv[3])
    for sql in statements:
        connection.sql(sql)
    count = lambda sql: connection.sql(sql).fetchall()[0][0]
    assert count(f'SELECT count(*) FROM "{table}"') == expected
    ids = count(f'SELECT count(DISTINCT event_id) FROM "{table}"')
    assert count(f'SELECT count(*) FROM "{table}_latest"') == ids
    wrong = count(
        f'''SELECT count(*) FROM "{table}_latest" latest JOIN "{table}" other USING (event_id)
            WHERE other.timestamp > latest.timestamp'''
    )
    assert wrong == 0, wrong
    kinds = {name: kind for name, kind, *_ in connection.sql(f'DESCRIBE "{table}"').fetchall()}
    assert (kinds["year"], kinds["month"], kinds["day"]) == ("INTEGER",) * 3, kinds
    print(json.dumps({"rows": expected, "ids": ids, "columns": list(kinds)}))
