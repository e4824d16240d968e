# SPDX-License-Identifier: MIT
"""Guest test programs as pytest collects them, and their cases as it runs them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from harness import interrupts, pools
from harness.arch import Arch, size_name
from harness.errors import BadInput, HarnessError
from harness.guest.cases import Case, find
from harness.options import expand
from harness.running import RUN, UNREADABLE, evidence, give_up, outcome, uncaptured

if TYPE_CHECKING:
    from harness.report.results import CaseResult


class Program(pytest.File):
    """A guest test program."""

    def collect(self) -> Iterator[GuestItem]:
        """Yield an item for each case, architecture and huge page size."""
        try:
            cases = find(self.path)
        except BadInput as error:
            self.config.stash.setdefault(UNREADABLE, []).append(error)
            raise self.CollectError(str(error)) from error
        for arch in expand(self.config.getoption("arch")):
            reserved = {pool.size for pool in pools.of(arch, self.config.getoption("huge_pages"))}
            for case in cases:
                for size in case.sizes_on(arch):
                    if size not in reserved:
                        continue
                    name = f"{case.name}[{arch.name}-{size_name(size)}]"
                    item: GuestItem = GuestItem.from_parent(self, name=name, case=case, arch=arch, size=size)
                    yield item


class GuestItem(pytest.Item):
    """One case on one architecture at one huge page size."""

    def __init__(self, *, case: Case, arch: Arch, size: int, **rest: Any) -> None:
        super().__init__(**rest)
        self.case, self.arch, self.size = case, arch, size
        self.result: CaseResult | None = None
        # Words that -k understands besides the id's own.
        self.extra_keyword_matches.update(
            (case.category, arch.name, size_name(size), "hgm" if case.needs_hgm else "stock")
        )
        known = {"claim": case.claim, "category": case.category, "huge_page_size": size_name(size)}
        self.user_properties += known.items()

    def runtest(self) -> None:
        """Run the case and raise what its result says."""
        from harness.report.whole import facts

        run = self.config.stash[RUN]
        self.user_properties += facts(run.result, self.arch.name).items()
        try:
            with uncaptured(self.config) if run.boots_for(self.case, self.arch) else contextlib.nullcontext():
                result = run.run(self.case, self.arch, self.size, self.nodeid)
        except HarnessError as error:
            give_up(self.config, error)
        finally:
            interrupts.raise_lost()
        self.result = result
        if result.status == "skip":
            pytest.skip(result.reason or "the program gave no reason")
        if result.status == "xfail":
            pytest.xfail(result.reason)
        if result.red:
            raise CaseFailed(result)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The evidence instead of a traceback, which would only show the harness."""
        if isinstance(excinfo.value, CaseFailed):
            return evidence(excinfo.value.result, outcome(self.config)[0])
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[os.PathLike[str], int, str]:
        """Where the case stands in its source."""
        return self.path, self.case.line - 1, self.name


class CaseFailed(Exception):
    """A case that did not pass; its result says why."""

    def __init__(self, result: CaseResult) -> None:
        super().__init__(f"{result.status}: {'; '.join(finding.message for finding in result.findings)}")
        self.result = result
