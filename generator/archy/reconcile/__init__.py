# SPDX-License-Identifier: MIT
"""archy-reconcile: compares the desired state with the current one, and takes the steps between them."""
