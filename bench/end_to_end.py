#!/usr/bin/env python3
"""Measures ingest, distribute and run end to end; see README.md beside this file. Standard library only."""
import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = ROOT / "target/release/event-distributor"


def measured(name, events, args, env):
    """Runs a command to its JSON report; returns wall seconds, CPU seconds and peak memory of that process alone."""
    begun = time.monotonic()
    process = subprocess.Popen([BINARY, *args, "--output", "json", "--log", "warn"], stdout=subprocess.PIPE, env=env)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - begun
    if status != 0:
        sys.exit(f"{name} failed with status {status}")
    cpu = usage.ru_utime + usage.ru_stime
    result = {
        "name": name,
        "events_per_s": round(events / wall),
        "cpu_s_per_million": round(cpu / events * 1e6, 2),
        "peak_rss_mb": round(usage.ru_maxrss / 1024),
        "wall_s": round(wall, 2),
        "report": json.loads(output.splitlines()[-1]),
    }
    print(f"{name:12} {result['events_per_s']:>9,} events/s {result['cpu_s_per_million']:>6} CPU s / M {result['peak_rss_mb']:>5} MB", flush=True)
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=2_000_000)
    events = parser.parse_args().events
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    work = pathlib.Path(tempfile.mkdtemp(prefix="bench.", dir=ROOT / ".work"))
    # Sample files are whole: none is waited for.
    env = dict(os.environ, ED__LANDING__MIN_AGE="0s")
    try:
        up = subprocess.run([ROOT / "tests/services/up", work / "services"], check=True, capture_output=True, text=True).stdout
        kafka = re.search(r"ED_TEST_KAFKA=(\S+)", up).group(1)
        landing = work / "landing"
        made = subprocess.run([BINARY, "generate", "--events", str(events), "--out", landing / "pending", "--output", "json"], check=True, capture_output=True, text=True)
        made = json.loads(made.stdout)
        (landing / "landing.toml").write_text('archive = "leave"\n')
        results = [
            measured("ingest", events, ["ingest", "--once", "--brokers", kafka, "--landing", landing], env),
            measured("distribute", events, ["distribute", "--once", "--brokers", kafka, "--trusted", work / "t1"], env),
            measured("run", events, ["run", "--once", "--landing", landing, "--trusted", work / "t2"], env),
        ]
        for result in results[1:]:
            assert result["report"]["written"]["rows"] == made["unique"], result
    finally:
        subprocess.run([ROOT / "tests/services/down", work / "services"], check=False)
        shutil.rmtree(work, ignore_errors=True)
    run = {
        "command": "python3 " + " ".join(["bench/end_to_end.py", *sys.argv[1:]]),
        "commit": commit,
        "date": datetime.date.today().isoformat(),
        "machine": {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine(), "system": platform.system()},
        "input": made,
        "results": results,
    }
    path = ROOT / "bench/runs" / f"{run['date']}-{commit}-end_to_end.json"
    path.write_text(json.dumps(run, indent=2) + "\n")
    print(f"kept in {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
