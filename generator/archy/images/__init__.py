# SPDX-License-Identifier: MIT
"""The images of apps: their names, and how they get here."""
