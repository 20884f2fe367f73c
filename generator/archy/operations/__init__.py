# SPDX-License-Identifier: MIT
"""What a person asks for: install, remove, start, stop, switch, rotate."""
