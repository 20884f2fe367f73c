#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes a database cluster where there is none, and becomes the command. Of what the official image's script knows, this
# does POSTGRES_PASSWORD, POSTGRES_PASSWORD_FILE, POSTGRES_USER, POSTGRES_DB and POSTGRES_HOST_AUTH_METHOD.
set -eu
[ "${1:-}" = postgres ] || exec "$@"
[ ! -s "$PGDATA/PG_VERSION" ] || exec "$@"

user=${POSTGRES_USER:-postgres}
password=${POSTGRES_PASSWORD:-}
[ -z "${POSTGRES_PASSWORD_FILE:-}" ] || password=$(cat "$POSTGRES_PASSWORD_FILE")
method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
if [ -z "$password" ] && [ "$method" != trust ]; then
    echo 'Error: Database is uninitialized and superuser password is not specified.' >&2
    exit 1
fi
# Whole or not at all: a cluster that was cut short has no PG_VERSION, and is made anew.
new=$PGDATA/.new
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
version=$(cat "$new/PG_VERSION")
rm "$new/PG_VERSION"
mv "$new"/* "$PGDATA"
rmdir "$new"
sync
echo "$version" >"$PGDATA/PG_VERSION"
exec "$@"
