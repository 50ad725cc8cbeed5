# shellcheck shell=bash disable=SC2034
# Shared by the scripts in this folder: the versions, the places, and starting
# and stopping a background service. Sourced, never run.

KAFKA=4.3.1
SLF4J=1.7.36
VERSITYGW=1.8.0  # before 1.8.0 a conditional put was not atomic
VERSITYGW_GO=25  # its go.mod asks for Go 1.25
DUCKDB=2.0.0
PYARROW=26.0.1
SQLGLOT=30.30.0
DELTALAKE=1.6.6
POLARS=2.1.0
DUCKDB_DELTA=1.5.5 # DuckDB and its extension: of DuckDB 2 there is none for Delta tables in the registry
PYTZ=2026.6
MOTO=5.2.5 # an SQS server; without its extra "server", which brings 180 MB for other services
FLASK=3.1.3
FLASK_CORS=6.0.5

services=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
cache=${ED_SERVICES_CACHE:-${services%/*/*}/.work/services}
[[ $cache == /* ]] || cache=$PWD/$cache

kafka_dir=$cache/kafka-$KAFKA
s3_dir=$cache/versitygw-$VERSITYGW
readers_dir=$cache/readers
readers_pins="duckdb==$DUCKDB pyarrow==$PYARROW sqlglot==$SQLGLOT"
delta_dir=$cache/delta
delta_pins="deltalake==$DELTALAKE polars==$POLARS duckdb==$DUCKDB_DELTA duckdb-extension-delta==$DUCKDB_DELTA pytz==$PYTZ"
sqs_dir=$cache/sqs
sqs_pins="moto==$MOTO flask==$FLASK flask-cors==$FLASK_CORS"

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Each part is renamed into place with its marker inside, so the marker means
# the whole part exists. A venv's Python is also run: its interpreter may have
# been removed or upgraded.
have_kafka() { [[ -f $kafka_dir/.installed ]]; }
have_s3() { [[ -f $s3_dir/.installed ]]; }
have_venv() { # have_venv DIRECTORY PINS PACKAGE
    [[ -f $1/.installed && $(<"$1/.installed") == "$2" ]] &&
        "$1/bin/python" -c "import importlib.metadata as m; m.version('$3')" 2>/dev/null
}
have_readers() { have_venv "$readers_dir" "$readers_pins" duckdb; }
have_delta() { have_venv "$delta_dir" "$delta_pins" deltalake; }
have_sqs() { have_venv "$sqs_dir" "$sqs_pins" moto; }
have_all() { have_kafka && have_s3 && have_readers && have_delta && have_sqs; }

need_install() {
    have_all || die "not installed in $cache: run tests/services/install first"
}

# Sets $run to the absolute path of the run directory given as only argument.
run_dir() {
    [[ $# -eq 1 && -n $1 ]] || die "usage: ${0##*/} <run-dir>"
    run=$(cd -- "$1" && pwd -P) || die "no run directory $1"
}

# alive NAME: sets $pid and succeeds while the process of $run/NAME.pid lives.
# The command line has to name the run directory, so that neither a zombie (it
# has none) nor another process with a reused pid counts.
alive() {
    pid=$(cat "$run/$1.pid" 2>/dev/null) && [[ -n $pid ]] || return 1
    [[ $(tr '\0' ' ' <"/proc/$pid/cmdline") == *"$run"* ]] 2>/dev/null
}

# gone NAME SECONDS: waits until the process has ended; fails after SECONDS.
gone() {
    local until=$((SECONDS + $2))
    while alive "$1"; do
        ((SECONDS <= until)) || return 1
        sleep 0.05
    done
}

# start NAME READY COMMAND…: starts COMMAND detached, with its output appended
# to $run/NAME.log, and returns once READY succeeds. READY is called with the
# output of this start (not of earlier ones) as its standard input.
start() {
    local name=$1 ready=$2 log=$run/$1.log from until=$((SECONDS + 60))
    shift 2
    # A process that a test has just killed may still hold its port and locks.
    gone "$name" 10 || die "$name already runs (pid $pid)"
    touch "$log"
    from=$(($(wc -c <"$log") + 1))
    cd "$run" || die "no $run" # where a crashing JVM leaves its report
    # A session of its own: no signal of the caller's terminal or group reaches it.
    setsid "$@" >>"$log" 2>&1 </dev/null &
    echo $! >"$run/$name.pid"
    until "$ready" < <(tail -c "+$from" "$log"); do
        # While a process executes another program its command line is empty for a moment: read it twice.
        if { ! alive "$name" && sleep 0.3 && ! alive "$name"; } || ((SECONDS >= until)); then
            tail -c "+$from" "$log" | tail -n 40 >&2
            alive "$name" || die "$name died while starting (the end of $log is above)"
            kill -KILL "$pid"
            die "$name did not answer within 60 s (the end of $log is above)"
        fi
        sleep 0.1
    done
}

# stop NAME: TERM, then KILL after 10 s; returns when the process has ended.
stop() {
    if alive "$1"; then
        kill -TERM "$pid" 2>/dev/null || true
        gone "$1" 10 || kill -KILL "$pid" 2>/dev/null || true
        gone "$1" 10 || die "$1 (pid $pid) does not die"
    fi
    rm -f "$run/$1.pid"
}
