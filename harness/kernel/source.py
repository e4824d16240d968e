# SPDX-License-Identifier: MIT
"""Where the kernel comes from: a git tree or plain directory, a Debian source package, or a tarball."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.bootstrap import privilege
from harness.errors import BadInput, HostFault
from harness.kernel.repo import KernelRepo, ask, disk_faults, disk_hint
from harness.kernel.tarball import import_tarball, unpack_package
from harness.paths import cache_dir, digest, locked, sha256
from harness.process import run, say, tail

DEFAULT_PACKAGE = "linux-source-6.1"
OLDEST = "6.1.192"  # of the default package, that patches/reference applies to
PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9.+:~-]+)?")  # Debian Policy 5.6.1 and 5.6.12
MARKS = ("Makefile", "Kconfig", "mm/hugetlb.c")  # also in the sparsest checkout
NEEDED = (*MARKS, "scripts/kconfig/merge_config.sh", "scripts/decode_stacktrace.sh")
UNKNOWN = re.compile(r"^E: Version .* was not found$", re.MULTILINE)  # apt, of a version in none of its lists
LINEAGE = 100  # bytes of an origin's name that go into names of files, to which more is added


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """What the user asked for: at most one of `tree`, `package`, `tarball`; none means the default package."""

    tree: Path | None = None
    commit: str | None = None  # only with `tree`; None: the tree as it lies there, uncommitted changes and all
    package: str | None = None
    tarball: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One kernel source, whole, as a tree in the cache's repository."""

    kind: str  # "git", "directory", "package" or "tarball"
    label: str  # for people: where it is from and which state of it
    tree: str  # git tree hash: its identity
    commit: str | None  # full hash, where the tree is exactly that of a commit or `dirty` changes on top of it
    dirty: bool  # whether there are changes on top of `commit`
    version: str  # "6.1.192", from its Makefile
    alternate: Path | None  # the user's object store that holds part of it
    lineage: str  # name of its work tree and output directories: the same for every state of one origin


def resolve(spec: SourceSpec) -> Source:
    """Return the source that `spec` names, brought into the cache's repository if it is not there.

    Raises BadInput for what does not exist or is no kernel, HostFault if git, apt, the network or the disk fails.
    """
    if sum(given is not None for given in (spec.tree, spec.package, spec.tarball)) > 1:
        raise BadInput("more than one kernel source given", hint="give one of --tree, --source-package, --tarball")
    if spec.commit and not spec.tree:
        raise BadInput(f"--commit {spec.commit} without a tree", hint="say which git tree with --tree DIR")
    with disk_faults():
        repo = KernelRepo.open()
        if spec.tree:
            return _from_tree(repo, spec.tree, spec.commit)
        if spec.tarball:
            return _from_tarball(repo, spec.tarball)
        return _from_package(repo, spec.package or DEFAULT_PACKAGE)


def _from_tree(repo: KernelRepo, given: Path, revision: str | None) -> Source:
    if not given.is_dir():
        raise BadInput(f"the kernel tree {given} is not {'a directory' if given.exists() else 'there'}")
    directory = given.resolve()
    lineage = f"{_safe(directory.name)[:LINEAGE]}-{digest(os.fspath(directory))[:8]}"
    top = ask(directory, "rev-parse", "--show-toplevel")
    is_git = top is not None and Path(top).resolve() == directory
    if ask(directory, "rev-parse", "--is-bare-repository") == "true":
        is_git = True
        revision = revision or "HEAD"
    if not is_git:
        if revision:
            raise BadInput(f"--commit {revision}: {given} is not the top of a git tree")
        _require_files(given, directory)
        tree = _snapshot(repo, directory, "", lineage)
        return _checked(repo, Source(
            kind="directory", label=os.fspath(directory), tree=tree, commit=None, dirty=False, version="",
            alternate=None, lineage=lineage,
        ))  # fmt: skip
    store = Path(ask(directory, "rev-parse", "--path-format=absolute", "--git-path", "objects") or "")
    repo = repo.reading(store)
    commit = ask(directory, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision or 'HEAD'}^{{commit}}")
    if revision and not commit:
        raise BadInput(f"there is no commit {revision!r} in {given}", hint="git fetch it, or see `git log --oneline`")
    committed = repo.git("rev-parse", f"{commit}^{{tree}}").stdout.strip() if commit else ""
    tree = committed
    if not revision:
        _require_files(given, directory)
        tree = _snapshot(repo, directory, committed, lineage)
    dirty = tree != committed
    name = ask(directory, "describe", "--always", "--tags", commit) if commit else None
    label = f"{directory} at {name or 'no commit'}" + (" with uncommitted changes" if dirty else "")
    return _checked(repo, Source(
        kind="git", label=label, tree=tree, commit=commit, dirty=dirty, version="", alternate=store, lineage=lineage,
    ))  # fmt: skip


def _snapshot(repo: KernelRepo, directory: Path, head: str, lineage: str) -> str:
    """Return the tree of what lies in `directory` now, less what is ignored; nothing in it or its .git is written."""
    with locked(f"snapshot-{lineage}"):
        kept = repo.path / "tmp" / f"{lineage}.index"
        kept.with_name(f"{kept.name}.lock").unlink(missing_ok=True)
        index_name = ask(directory, "rev-parse", "--path-format=absolute", "--git-path", "index") if head else None
        users = Path(index_name) if index_name else None
        excludes = _excludes(repo, directory, lineage) if head else None
        words = ["-c", f"core.excludesFile={excludes or os.devnull}", "add", "--all", "."]
        if not head and _ignores_all(repo, directory):
            words.append("--force")
        if users and users.exists():
            # With the time of its last change: git reads again the files that changed in the same instant.
            shutil.copy2(users, kept)
            kept.chmod(0o600)
            _join(repo, kept, users.parent)
            if repo.git("ls-files", "--error-unmatch", "Makefile", index=kept, check=False).returncode:
                # Damaged, or of a git to come: without one, every file is compared with HEAD.
                kept.unlink()
            else:
                _look_at_all(repo, directory, kept)
        elif head:
            kept.unlink(missing_ok=True)
        if head and not kept.exists():
            repo.git("read-tree", head, index=kept)
        # From here on without the user's objects: git freshens the time of an object that it need not write again.
        repo = repo.reading(None)
        done = repo.git(*words, index=kept, work_tree=directory, check=False)
        if done.returncode and not head:
            # An index of an earlier run, cut short or damaged: it only saves time.
            kept.unlink(missing_ok=True)
            done = repo.git(*words, index=kept, work_tree=directory, check=False)
        if done.returncode:
            reason = done.stderr.strip()
            raise HostFault(f"the state of {directory} cannot be taken: {reason}", hint=disk_hint(reason))
        # The files that did not change are among the user's objects, hence "missing".
        return repo.git("write-tree", "--missing-ok", index=kept).stdout.strip()


def _join(repo: KernelRepo, index: Path, place: Path) -> None:
    """Make a split index whole. Its other half lies in `place`, the user's, but git looks for it where `repo` is."""
    halves = [Path(shutil.copy2(half, repo.path)) for half in place.glob("sharedindex.*")]
    if halves:
        repo.git("update-index", "--no-split-index", index=index, check=False)
    for half in halves:
        half.unlink(missing_ok=True)


def _look_at_all(repo: KernelRepo, directory: Path, index: Path) -> None:
    """Take from an index the marks by which git passes over changes: of all files but those not checked out."""
    lines = repo.git("ls-files", "-v", "-z", index=index).stdout.split("\0")[:-1]
    assumed = [line[2:] for line in lines if line[0].islower()]
    skipped = [line[2:] for line in lines if line[0] in "sS"]
    there = [name for name in skipped if os.path.lexists(directory / name)]
    for flag, names in (("--no-assume-unchanged", assumed), ("--no-skip-worktree", there)):
        if names:
            stdin = "\0".join(names).encode()
            repo.git("update-index", flag, "-z", "--stdin", index=index, work_tree=directory, stdin=stdin)
    if skipped:
        # What a sparse index has as directories, git knows only with the user's objects.
        repo.git("update-index", "--force-write-index", index=index, work_tree=directory)


def _ignores_all(repo: KernelRepo, directory: Path) -> bool:
    """Tell whether the top .gitignore ignores the whole kernel, as that of Debian's source tarballs does.

    Raises BadInput if such a tree was built in: nothing then tells its sources from what was made of them.
    """
    ignored = repo.git("check-ignore", "--quiet", "--no-index", "Makefile", work_tree=directory, check=False)
    if ignored.returncode == 0 and (directory / ".config").exists():
        raise BadInput(f"{directory} was configured or built in", hint="make mrproper there; use O= for builds by hand")
    return ignored.returncode == 0


def _excludes(repo: KernelRepo, directory: Path, lineage: str) -> Path:
    """Return a file with the ignore rules that lie outside the tree: the user's own and the clone's."""
    personal = ask(directory, "config", "--path", "core.excludesFile")
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "git/ignore"
    private = ask(directory, "rev-parse", "--path-format=absolute", "--git-path", "info/exclude")
    files = [Path(personal) if personal else base, *([Path(private)] if private else [])]
    target = repo.path / "tmp" / f"{lineage}.excludes"
    target.write_bytes(b"\n".join(file.read_bytes() for file in files if file.is_file()) + b"\n")
    return target


def _from_tarball(repo: KernelRepo, path: Path) -> Source:
    if not path.is_file():
        raise BadInput(f"the tarball {path} is not {'a file' if path.exists() else 'there'}")
    checksum = sha256(path)
    with locked(f"source-{checksum[:16]}"):
        tree = _remembered(repo, f"tarball-{checksum}")
        if not tree:
            tree = import_tarball(repo, path, name=checksum)
            _remember(f"tarball-{checksum}", {"tree": tree})
    return _checked(repo, Source(
        kind="tarball", label=f"{path.name} (sha256 {checksum[:12]})", tree=tree, commit=None, dirty=False, version="",
        alternate=None, lineage=_safe(re.sub(r"\.(tar(\.\w+)?|t\wz)$", "", path.name))[:LINEAGE],
    ))  # fmt: skip


def _from_package(repo: KernelRepo, wanted: str) -> Source:
    if not PACKAGE_NAME.fullmatch(wanted):
        raise BadInput(f"{wanted!r} is no name of a Debian package", hint=f"the default is {DEFAULT_PACKAGE}")
    name, _, pinned = wanted.partition("=")
    with locked(f"package-{name}"):
        version = pinned or _candidate(name)
        # Without package lists the version last fetched answers, so that a cache works on its own.
        latest = _read_memo(f"package-{name}").get("version", "")
        if not version and not latest:
            _refuse_package(name)
        version = version or latest
        tree = _remembered(repo, f"package-{name}-{_safe(version)}")
        if not (tree or pinned) and name == DEFAULT_PACKAGE and _numbers(version) < _numbers(OLDEST):
            version = _refreshed(name, version)
        memo = f"package-{name}-{_safe(version)}"
        tree = _remembered(repo, memo)
        if not tree:
            tree = _fetch(repo, name, version, pinned=bool(pinned))
            _remember(memo, {"tree": tree, "version": version})
        _remember(f"package-{name}", {"version": version})
    return _checked(repo, Source(
        kind="package", label=f"{name} {version}", tree=tree, commit=None, dirty=False, version="", alternate=None,
        lineage=name,
    ))  # fmt: skip


def _candidate(name: str) -> str:
    """Return the version of the package that apt would install, or "" if apt knows none."""
    if not shutil.which("apt-cache"):
        return ""
    # Debian's container images tell apt to keep no index of its lists; each question would then read all of them anew.
    index = f"Dir::Cache::pkgcache={cache_dir() / 'apt.bin'}"
    words = ["apt-cache", "-o", index, "policy", name]
    out = run(words, env={**os.environ, "LC_ALL": "C"}, quiet=True, check=False).stdout
    found = re.search(r"^\s*Candidate: (\S+)", out, re.MULTILINE)
    return found[1] if found and found[1] != "(none)" else ""


def _refreshed(name: str, version: str) -> str:
    """Return the version of the package after apt's lists, which know an old one, were renewed; else `version`."""
    stale = f"apt's lists are old: they have {name} {version}, and the reference series is for {OLDEST}"
    prefix = privilege()
    if prefix is None:
        say(f"{stale}; type: sudo apt-get update")
        return version
    say(f"{stale}; running: apt-get update")
    done = run([*prefix, "apt-get", "-o", "DPkg::Lock::Timeout=300", "update"], quiet=True, check=False)
    if done.returncode:
        say(f"apt-get update failed, so it is {version}: {tail(done.stderr, 1)}")
    return _candidate(name) or version


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.partition("-")[0])]


def _refuse_package(name: str) -> None:
    elsewhere = "give a kernel with --tree DIR or --tarball FILE"
    if not shutil.which("apt-get"):
        raise HostFault(f"there is no apt-get here to fetch {name} with", hint=elsewhere)
    known = run(["apt-cache", "dumpavail"], quiet=True, check=False).stdout
    if "\nFilename: " not in known:
        raise HostFault(f"apt's package lists are empty, so {name} is not found", hint="apt-get update")
    raise BadInput(f"there is no Debian package {name}", hint=f"the default is {DEFAULT_PACKAGE}; or {elsewhere}")


def _fetch(repo: KernelRepo, name: str, version: str, *, pinned: bool) -> str:
    """Fetch one version of a source package, import its tarball, and return the tree. Nothing is left but the tree."""
    with tempfile.TemporaryDirectory(prefix="package-", dir=cache_dir()) as work:
        directory = Path(work)
        # apt's own helper user reads and writes here when root runs it.
        directory.chmod(0o755)
        say(f"fetching {name} {version}")
        words = ["apt-get", "download", "--quiet=2", "-o", "APT::Sandbox::User=root", f"{name}={version}"]
        result = run(words, cwd=directory, env={**os.environ, "LC_ALL": "C"}, check=False)
        package = next(directory.glob("*.deb"), None)
        if result.returncode or not package:
            advice = "see that the network is up, then apt-get update; or give a kernel with --tree DIR"
            reason = result.stderr.strip()
            if pinned and "Unable to locate package" in reason:
                _refuse_package(name)
            if pinned and UNKNOWN.search(reason):
                raise BadInput(f"there is no {name} {version}: {reason}", hint=f"apt-cache policy {name} lists them")
            raise HostFault(f"apt-get cannot fetch {name} {version}: {reason}", hint=disk_hint(reason) or advice)
        tarball = unpack_package(package, f"usr/src/{name}.tar.xz", directory)
        return import_tarball(repo, tarball, name=f"{name}-{digest(version)}")


def _require_files(given: Path, directory: Path) -> None:
    """Raise BadInput before any work is done for a directory that is clearly no kernel."""
    lacking = [path for path in MARKS if not (directory / path).is_file()]
    if lacking:
        raise BadInput(f"{given} is not a kernel tree: it lacks {', '.join(lacking)}")


def _checked(repo: KernelRepo, source: Source) -> Source:
    """Return `source` with its version. Raises BadInput if its tree is no kernel."""
    present = repo.reading(source.alternate).git("ls-tree", "--name-only", source.tree, *NEEDED).stdout.split()
    lacking = [path for path in NEEDED if path not in present]
    if lacking:
        raise BadInput(f"{source.label} is not a kernel tree: it lacks {', '.join(lacking)}")
    makefile = repo.reading(source.alternate).text(source.tree, "Makefile") or ""
    parts = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *= *(\S*)", makefile, re.MULTILINE))
    if not parts.get("VERSION") or not parts.get("PATCHLEVEL"):
        raise BadInput(f"{source.label} is not a kernel tree: its Makefile has no VERSION and PATCHLEVEL")
    number = ".".join(parts[part] for part in ("VERSION", "PATCHLEVEL", "SUBLEVEL") if parts.get(part))
    fields = {name: getattr(source, name) for name in source.__slots__}
    return Source(**fields | {"version": number + parts.get("EXTRAVERSION", "")})


def _memo(name: str) -> Path:
    return cache_dir() / "sources" / f"{name}.json"


def _read_memo(name: str) -> dict[str, str]:
    path = _memo(name)
    try:
        return {str(key): str(value) for key, value in json.loads(path.read_text()).items()}
    except (FileNotFoundError, ValueError):
        # Cut short by a full disk or a crash: as good as none, it only saves time.
        return {}


def _remembered(repo: KernelRepo, name: str) -> str | None:
    tree = _read_memo(name).get("tree")
    return tree if tree and repo.has(tree) else None


def _remember(name: str, values: dict[str, str]) -> None:
    path = _memo(name)
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(values))
    part.replace(path)


def _safe(name: str) -> str:
    """Return `name` with only characters that are safe in a path and for make."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip(".") or "kernel"
