#!/usr/bin/env bash
# Records the golden captures from one running PostgreSQL, into the folder that bears its major version:
#
#   for version in 14 15 16 17 18; do
#       dev/stack run --postgres $version --no-kafka --no-registry -- crates/pgoutput/tests/golden/record.sh
#   done
#   BLESS=1 cargo test -p pgoutput --test golden && git diff --stat crates/pgoutput/tests/golden
#
# Without dev/stack, name the server by PGHOST, PGPORT, PGUSER and PGDATABASE. It must trust the connection, and run with
# wal_level=logical, max_prepared_transactions > 0 and 4 free replication slots and senders. The database should be a fresh one: it keeps the
# schema `golden` and the slots. Needs psql and python3.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [[ ${PGSLUICE_TEST_POSTGRES_SOCKET_URL:-} =~ ^postgres://([^@]+)@/([^?]+)\?host=([^&]+)\&port=([0-9]+)$ ]]; then
    export PGUSER=${BASH_REMATCH[1]} PGDATABASE=${BASH_REMATCH[2]} PGHOST=${BASH_REMATCH[3]} PGPORT=${BASH_REMATCH[4]}
fi
version=$(psql -XAtc 'SHOW server_version_num')
major=$((version / 10000))
out=$here/$major
mkdir -p "$out"

# name | first server version | two-phase slot | publications | options
captures() {
    while IFS='|' read -r name since two_phase publications options; do
        if ((major >= since)); then printf '%s|%s|%s\n' "$name" "$two_phase" "publication_names '$publications', $options"; fi
    done <<'END'
v1-text-frames|14|false|golden,golden_inserts,golden_large|proto_version '1'
v2-streaming-binary|14|false|golden,golden_inserts|proto_version '2', streaming 'on', binary 'true'
v3-two-phase-streaming|15|true|golden,golden_inserts|proto_version '3', two_phase 'on', streaming 'on'
v4-two-phase-parallel-binary|16|true|golden,golden_inserts|proto_version '4', two_phase 'on', streaming 'parallel', binary 'true'
END
}

psql -qX -o /dev/null -f "$here/setup.sql"
recorders=()
while IFS='|' read -r name two_phase options; do
    slot=golden_${name//-/_}
    psql -qX -o /dev/null -c "SELECT pg_create_logical_replication_slot('$slot', 'pgoutput', false, $two_phase)"
    python3 "$here/record.py" "$PGHOST" "$PGPORT" "$PGUSER" "$PGDATABASE" "$slot" "${name##*-}" \
        "$options, messages 'true'" >"$out/$name.hex" &
    recorders+=($!)
done < <(captures)
until [[ $(psql -XAtc 'SELECT count(*) FROM pg_stat_replication') == "${#recorders[@]}" ]]; do sleep 0.1; done

psql -qX -o /dev/null -f "$here/scenario.sql"
for recorder in "${recorders[@]}"; do wait "$recorder"; done
wc -lc "$out"/*.hex
