# SPDX-License-Identifier: MIT
"""The operations of a person: install, remove, start, stop, switch, rotate."""
