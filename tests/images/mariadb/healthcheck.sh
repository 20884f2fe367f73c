#!/bin/sh
# SPDX-License-Identifier: MIT
# healthcheck.sh --connect --innodb_initialized: whether the server answers over TCP, which it does not while the
# database is being made. Whatever else is asked for, this is what it tells. `ping` is well without a login, too.
exec mariadb-admin --no-defaults --protocol=tcp --host=127.0.0.1 --user=healthcheck --skip-ssl ping >/dev/null 2>&1
