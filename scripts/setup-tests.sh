#!/usr/bin/env bash
# Sets up what the tests need beside cargo, all of it inside this clone and ignored by git:
#   .tools/nats-server/<version>/nats-server   the newest and the oldest server we support
#   .tools/venv                                python with the packages of tests/requirements.txt
# Does nothing, quickly, when all of it is there. Run by `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.tools/venv
requirements=tests/requirements.txt
stamp="$venv/.requirements"

fail() {
    echo "setup-tests: $*" >&2
    exit 1
}

command -v python3 >/dev/null || fail "python3 is not on PATH: install Python 3.10 or newer"

# The stamp names the python and the requirements that the venv was made from, and is written last:
# an interrupted set-up is begun anew.
wanted="$(python3 -c 'import sys; print(sys.version.split()[0])') $(cksum <"$requirements")"

make_venv() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "the tests' MCP client needs Python 3.10 or newer, python3 is $(python3 -V 2>&1)"

    # Debian splits ensurepip, without which a venv has no pip, into a package of its own.
    if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
        if [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
            echo "setup-tests: installing python3-venv" >&2
            { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv ||
                { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; }; } \
                >/dev/null 2>&1 || fail "cannot install python3-venv: install it and start again"
        else
            fail "python3 has no venv module: install it (Debian: apt-get install python3-venv)"
        fi
    fi

    echo "setup-tests: making $venv" >&2
    rm -rf "$venv"
    mkdir -p .tools 2>/dev/null || fail "cannot write to $PWD/.tools"
    # Not local: the trap reads it when the script ends.
    log="$(mktemp .tools/setup-XXXXXX 2>/dev/null)" || fail "cannot write to $PWD/.tools"
    trap 'rm -f "$log"' EXIT
    python3 -m venv "$venv" >"$log" 2>&1 || fail "cannot make $venv: $(tail -n 1 "$log")"
    # Compiling the packages ahead costs more time than the tests gain by it.
    "$venv/bin/python" -m pip install --quiet --no-compile --no-input --disable-pip-version-check \
        --requirement "$requirements" >"$log" 2>&1 ||
        fail "cannot install $requirements: $({ grep '^ERROR' "$log" || cat "$log"; } | tail -n 1)"
    printf '%s' "$wanted" >"$stamp"
}

if [[ ! -x "$venv/bin/python" || ! -f "$stamp" || "$(cat "$stamp")" != "$wanted" ]]; then
    make_venv
fi

# After the venv, whose pip will do where python3 has none.
scripts/fetch-nats-server.py >/dev/null
scripts/fetch-nats-server.py --oldest >/dev/null
