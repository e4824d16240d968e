# SPDX-License-Identifier: MIT
"""Bisection: git chooses the commits, a run of the harness judges each, and nothing is guessed in between."""
