#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes a database cluster where there is none, and becomes the command. Of what the official image's script knows, this
# does POSTGRES_PASSWORD, POSTGRES_PASSWORD_FILE, POSTGRES_USER, POSTGRES_DB and POSTGRES_HOST_AUTH_METHOD.
set -eu
[ "${1:-}" = postgres ] || exec "$@"
new=$PGDATA/.new made=$PGDATA/.made
# What is whole is moved to its place, also where that was cut short. The folder itself cannot be exchanged: it is a
# mount.
settle() {
    find "$made" -mindepth 1 -maxdepth 1 -exec mv -t "$PGDATA" '{}' +
    rmdir "$made"
    sync
}
[ ! -d "$made" ] || settle
[ ! -s "$PGDATA/PG_VERSION" ] || exec "$@"

user=${POSTGRES_USER:-postgres}
password=${POSTGRES_PASSWORD:-}
[ -z "${POSTGRES_PASSWORD_FILE:-}" ] || password=$(cat "$POSTGRES_PASSWORD_FILE")
method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
if [ -z "$password" ] && [ "$method" != trust ]; then
    echo 'Error: Database is uninitialized and superuser password is not specified.' >&2
    exit 1
fi
# Whole or not at all: a cluster that was cut short is made anew.
rm -rf "$new"
mkdir -p "$PGDATA"
chmod 700 "$PGDATA"
umask 077
printf '%s\n' "$password" >/tmp/pwfile
if [ -n "$password" ]; then
    initdb --pgdata="$new" --username="$user" --auth-local=trust --auth-host="$method" --pwfile=/tmp/pwfile
else
    initdb --pgdata="$new" --username="$user" --auth-local=trust --auth-host="$method"
fi
rm /tmp/pwfile
echo "host all all all $method" >>"$new/pg_hba.conf"
echo "listen_addresses = '*'" >>"$new/postgresql.conf"
if [ "${POSTGRES_DB:-$user}" != postgres ]; then
    echo "CREATE DATABASE \"${POSTGRES_DB:-$user}\"" | postgres --single -D "$new" postgres >/dev/null
fi
sync
mv "$new" "$made"
settle
exec "$@"
