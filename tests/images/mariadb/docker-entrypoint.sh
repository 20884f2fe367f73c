#!/bin/bash
# SPDX-License-Identifier: MIT
# Makes a database where there is none, and becomes the command. Of what the official image's script knows, this does
# (MARIADB|MYSQL)_ROOT_PASSWORD, _DATABASE, _USER and _PASSWORD, each also with _FILE, and
# _ALLOW_EMPTY_ROOT_PASSWORD and _ROOT_HOST. MARIADB_ wins over MYSQL_.
set -euo pipefail
case ${1:-} in
-* | '') set -- mariadbd "$@" ;;
mysqld) set -- mariadbd "${@:2}" ;;
esac
[ "$1" = mariadbd ] || exec "$@"
data=/var/lib/mysql new=/var/lib/mysql/.new made=/var/lib/mysql/.made

if [ "$(id -u)" = 0 ]; then
    find "$data" /run/mysqld \! -user mysql -exec chown mysql: '{}' +
    exec setpriv --reuid=mysql --regid=mysql --init-groups "$0" "$@"
fi

told() {                                # told NAME: what the environment says, or a file that it names
    local name file
    for name in "MARIADB_$1" "MYSQL_$1"; do
        file=${name}_FILE
        if [ -n "${!name:-}" ]; then printf '%s' "${!name}" && return; fi
        if [ -n "${!file:-}" ]; then cat "${!file}" && return; fi
    done
}
text() {                                # text VALUE: as a literal of SQL
    local value=${1//\\/\\\\}
    printf "'%s'" "${value//\'/\'\'}"
}
statements() {
    local root user database host
    root=$(text "$(told ROOT_PASSWORD)") user=$(told USER) database=$(told DATABASE) host=$(told ROOT_HOST)
    echo "ALTER USER root@localhost IDENTIFIED BY $root;"
    echo "CREATE USER IF NOT EXISTS root@$(text "${host:-%}") IDENTIFIED BY $root;"
    echo "GRANT ALL ON *.* TO root@$(text "${host:-%}") WITH GRANT OPTION;"
    [ -z "$database" ] || echo "CREATE DATABASE \`$database\`;"
    [ -z "$user" ] || echo "CREATE USER $(text "$user")@'%' IDENTIFIED BY $(text "$(told PASSWORD)");"
    [ -z "$user" ] || [ -z "$database" ] || echo "GRANT ALL ON \`${database//_/\\_}\`.* TO $(text "$user")@'%';"
}

# Whole or not at all: what was cut short is made anew, and what was whole is moved to its place, where that was cut
# short. The folder itself cannot be exchanged: it is a mount.
if [ ! -d "$data/mysql" ] && [ ! -d "$made" ]; then
    if [ -z "$(told ROOT_PASSWORD)" ] && [ -z "$(told ALLOW_EMPTY_ROOT_PASSWORD)" ]; then
        echo 'Error: Database is uninitialized and password option is not specified' >&2
        exit 1
    fi
    rm -rf "$new"
    mariadb-install-db --datadir="$new" --rpm --auth-root-authentication-method=normal --skip-test-db >/dev/null
    socket=$(mktemp -u /tmp/init.XXXXXX.sock)
    mariadbd --datadir="$new" --skip-networking --socket="$socket" &
    server=$!
    until mariadb-admin --no-defaults --socket="$socket" --user=root ping >/dev/null 2>&1; do
        kill -0 "$server"
        sleep 0.1
    done
    statements | mariadb --no-defaults --socket="$socket" --user=root
    kill "$server"
    wait "$server"
    sync
    mv "$new" "$made"
fi
if [ -d "$made" ]; then
    find "$made" -mindepth 1 -maxdepth 1 -exec mv -t "$data" '{}' +
    rmdir "$made"
    sync
fi
exec "$@"
