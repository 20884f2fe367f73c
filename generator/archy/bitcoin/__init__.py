# SPDX-License-Identifier: MIT
"""The node's Bitcoin, whichever implementation it is."""
