# SPDX-License-Identifier: MIT
"""The life of one QEMU: its command line, QMP, console and ssh."""
