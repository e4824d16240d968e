# SPDX-License-Identifier: MIT
"""Goals: running a guest test is as easy as naming it, and a verdict can be trusted.

- `pytest -k "collapse and 2M"` builds what is missing, boots a guest and runs the cases; nothing else to set up.
- Collecting reads sources only. Ids do not change with the kernel, so --lf and history survive it.
- A case passes only if its KTAP, exit status, the kernel's log, the taint and the huge page pools all say so.

What makes it so is harness.plugin, which pytest knows by its entry point: options that hold paths must be known
before any conftest.py is looked for.
"""
