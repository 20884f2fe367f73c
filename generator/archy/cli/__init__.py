# SPDX-License-Identifier: MIT
"""The command archy: arguments in, words and exit codes out."""
