# SPDX-License-Identifier: MIT
"""JSON files in which a long undertaking keeps what it has found out, so that a killed one goes on where it was."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from harness.errors import BadInput
from harness.kernel.repo import disk_faults

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kept = TypeVar("Kept", bound="DataclassInstance")

MEND = "move it away to begin anew"


def load(path: Path, schema: int, kind: type[Kept]) -> Kept:
    """Return the `kind` that `save` has kept in `path`; an empty one, if the file is not there.

    Raises BadInput if it cannot be read, or is of another schema: `save` would replace what took hours to find out.
    """
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return kind()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"{path} is damaged: {error}", hint=MEND) from error
    if not isinstance(data, dict) or data.pop("schema", None) != schema:
        raise BadInput(f"{path} is of another version of the harness", hint=MEND)
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"{path} is damaged: {error}", hint=MEND) from error


def save(path: Path, schema: int, kept: DataclassInstance) -> None:
    """Write `kept` and its schema: whole or not at all. Raises HostFault if the disk is full."""
    with disk_faults():
        path.parent.mkdir(parents=True, exist_ok=True)
        work = path.with_suffix(".tmp")
        with work.open("w") as file:
            file.write(json.dumps({"schema": schema, **asdict(kept)}, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the name and not the words
        work.replace(path)
