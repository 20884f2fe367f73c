#!/bin/sh
# SPDX-License-Identifier: MIT
# As the official image's script: options alone, or a file of settings, are for the server, which is not run as root.
set -eu
case ${1:-} in
-* | *.conf) set -- valkey-server "$@" ;;
esac
if [ "${1:-}" = valkey-server ] && [ "$(id -u)" = 0 ]; then
    find . \! -user valkey -exec chown valkey '{}' +
    exec setpriv --reuid=valkey --regid=valkey --init-groups "$0" "$@"
fi
[ "$(umask)" != 0022 ] || umask 0077
exec "$@"
