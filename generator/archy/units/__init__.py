# SPDX-License-Identifier: MIT
"""archy-generator: apps to Quadlet text to systemd units."""
