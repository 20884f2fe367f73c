# SPDX-License-Identifier: MIT
"""The operating system; knows no app."""
