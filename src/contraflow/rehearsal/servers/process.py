"""Processes and folders that cannot outlive the process that made them.

Three guards, because each alone has a hole. A *janitor* (a few lines of ``sh`` that hold the other end of
a pipe) kills the servers and removes the folder as soon as the starter is gone, also after SIGKILL. The
kernel kills each server with its starter (``setpriv --pdeathsig``), also if the janitor was killed. And
`Home` sweeps folders whose owner is dead, also if the machine was switched off.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO

from contraflow.problems import Problem, ProblemError

__all__ = ["Home", "ServerProcess", "as_nobody", "run_setup", "run_tool"]

NOBODY = 65534
"""The uid and gid that PostgreSQL runs as when the starter is root, which it refuses."""

_PREFIX = "contraflow-"

_JANITOR = """
trap '' HUP INT QUIT TERM
cat >/dev/null
[ -e "$1" ] || exit 0
while read -r pid; do kill -9 "$pid" 2>/dev/null; done <"$1/pids"
n=0
while [ -e "$1" ] && [ "$n" -lt 100 ]; do
    rm -rf -- "$1" 2>/dev/null || sleep 0.1
    n=$((n + 1))
done
"""


class Home:
    """A temporary folder for one server, gone with the process that made it.

    ``name`` is part of the folder's name, for whoever looks at it.
    """

    def __init__(self, name: str) -> None:
        sweep()
        pid = os.getpid()
        self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{pid}-{_started(pid)}-{_pid_namespace()}-{name}-"))
        (self.path / "pids").touch()
        janitor = subprocess.Popen(
            ["/bin/sh", "-c", _JANITOR, "contraflow-janitor", str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        self._children: list[subprocess.Popen[bytes]] = []
        self.close = weakref.finalize(self, _close, self.path, janitor, self._children, pid)

    def spawn(
        self, command: Sequence[str], *, unprivileged: bool = False, log: Path, cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start ``command`` in the background, its output appended to ``log``.

        With ``unprivileged``, root's processes run as another user (see `as_nobody`).
        """
        # In this order: the kernel forgets the signal when a process gets other credentials.
        command = _dying_with_starter(command)
        command = as_nobody(command) if unprivileged else command
        with log.open("ab") as output:

            def popen() -> subprocess.Popen[bytes]:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # A Ctrl-C at the terminal is for the starter, which may still need its server.
                    start_new_session=True,
                    cwd=cwd or self.path,
                )

            child = _spawner.call(popen)
        self._children.append(child)
        with (self.path / "pids").open("a") as pids:
            pids.write(f"{child.pid}\n")
        return child

    def give_away(self, path: Path) -> None:
        """Let the user of unprivileged processes own ``path`` and all in it, if files show it as another."""
        if os.geteuid() != 0 or _user_namespaces():
            return
        for folder in (self.path, path):
            os.chown(folder, NOBODY, NOBODY)
        for parent, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(Path(parent, name), NOBODY, NOBODY)


def _close(path: Path, janitor: subprocess.Popen[bytes], children: list[subprocess.Popen[bytes]], pid: int) -> None:
    """Kill what runs in ``path``, remove it and let the janitor go; not in a forked copy of the starter."""
    if os.getpid() != pid:
        return
    for child in children:
        if child.poll() is None:
            child.kill()
    for child in children:
        child.wait()
    shutil.rmtree(path, ignore_errors=True)
    # What rmtree could not remove, because a grandchild was still writing, the janitor does.
    if janitor.stdin is not None:
        janitor.stdin.close()
    janitor.wait()


def sweep() -> None:
    """Remove the folders of starters that are gone without having been able to do it themselves."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        parts = path.name.split("-")
        if len(parts) < 5 or not parts[1].isdigit() or parts[3] != str(_pid_namespace()):
            continue
        if _started(int(parts[1])) == parts[2]:
            continue
        with contextlib.suppress(OSError):
            if path.stat().st_uid in {os.geteuid(), NOBODY}:
                _kill_all_in(path)
                shutil.rmtree(path, ignore_errors=True)


def _pid_namespace() -> int:
    """Which process ids ours are: a container that shares the temporary folder counts its own."""
    with contextlib.suppress(OSError):
        return Path("/proc/self/ns/pid").stat().st_ino
    return 0


def _started(pid: int) -> str:
    """When process ``pid`` started, in clock ticks since boot (proc(5)), so that a reused pid is told apart.

    Empty if there is no such process, or it is a zombie; "0" where there is no /proc.
    """
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return "0"
    try:
        # The name, in parentheses, may contain anything: count from its end.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]


def _descendants(pid: int) -> list[int]:
    """The children of process ``pid``, their children and so on; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(file.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(file.parent.name))
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, []))
    return found[1:]


def _kill_all_in(home: Path) -> None:
    """Kill the servers whose pids ``home`` lists, if they are still those: their command line names it."""
    with contextlib.suppress(OSError):
        for pid in (home / "pids").read_text().split():
            with contextlib.suppress(OSError):
                if str(home).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(int(pid), signal.SIGKILL)


class _Spawner:
    """One thread that starts every child and never ends.

    PR_SET_PDEATHSIG fires when the *thread* that forked ends (prctl(2)), so a server that was started from
    a pool's thread would die with that thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._calls: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]

    def call(self, function: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        future: Future[subprocess.Popen[bytes]] = Future()
        with self._lock:
            if self._pid != os.getpid():  # the first call, or the first in a forked child: threads are not inherited
                self._pid = os.getpid()
                self._calls = queue.SimpleQueue()
                threading.Thread(target=self._run, name="contraflow-spawner", daemon=True).start()
            self._calls.put((function, future))
        return future.result()

    def _run(self) -> None:
        calls = self._calls
        while True:
            function, future = calls.get()
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - it is raised in the caller
                future.set_exception(error)


_spawner = _Spawner()


@functools.cache
def _user_namespaces() -> bool:
    """Whether a process can be given another uid in a user namespace, which needs no change of ownership."""
    unshare = shutil.which("unshare")
    return unshare is not None and (
        subprocess.run(
            [unshare, "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--", "true"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
        == 0
    )


def as_nobody(command: Sequence[str]) -> list[str]:
    """``command`` with what makes it another user's, where the starter is root; else as it is.

    Either way the process still reads what only root may read, such as programs in root's home folder: in a
    user namespace, where the kernel allows one, it keeps root's files under another user's number; else it
    keeps the one capability that it needs for this.

    :raises ProblemError: CF207 if there is no way.
    """
    if os.geteuid() != 0:
        return list(command)
    if _user_namespaces():
        return ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--", *command]
    if shutil.which("setpriv"):
        user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        # Without the first, access(2) would not count the capability (capabilities(7)); initdb asks it.
        keep = ["--securebits=+no_setuid_fixup", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        return ["setpriv", *user, *keep, "--", *command]
    raise ProblemError(
        Problem(
            code="CF207",
            what=f"{Path(command[0]).name} cannot be run as another user than root.",
            why="PostgreSQL refuses to run as root, and neither unshare nor setpriv (util-linux) is there.",
            instead="run as a normal user.",
        )
    )


def _dying_with_starter(command: Sequence[str]) -> list[str]:
    """``command`` with what lets the kernel kill it when the thread ends that starts it."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig=KILL", "--", *command] if setpriv else list(command)


def run_tool(
    command: Sequence[str],
    *,
    unprivileged: bool = False,
    stdin: IO[bytes] | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run ``command`` to its end and return what it printed.

    :raises subprocess.CalledProcessError: if it fails; ``output`` has what it printed.
    """
    return subprocess.run(
        as_nobody(command) if unprivileged else command,
        stdin=stdin or subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=True,
        cwd=cwd,
        env=None if environment is None else {**os.environ, **environment},
    ).stdout


def run_setup(
    name: str,
    command: Sequence[str],
    *,
    unprivileged: bool = False,
    stdin: IO[bytes] | None = None,
    cwd: Path | None = None,
) -> str:
    """`run_tool` for a program of the server ``name`` that makes it ready to be started.

    :raises ProblemError: CF207 if it fails, with what it printed.
    """
    try:
        return run_tool(command, unprivileged=unprivileged, stdin=stdin, cwd=cwd)
    except (OSError, subprocess.CalledProcessError) as error:
        output = getattr(error, "output", None) or str(error)
        raise ProblemError(
            Problem(
                code="CF207",
                what=f"{name} cannot be made ready: {Path(command[0]).name} failed.",
                why="the last lines of what it printed:\n" + "\n".join(output.strip().splitlines()[-15:]),
                instead="remove the cause, or leave this server out.",
            )
        ) from error


class ServerProcess:
    """One server program in its `Home`: started, stopped, killed, started again on the same data.

    :param name: what the server is called in problems.
    :param command: the program and its arguments.
    :param ready: tells whether the server answers; called every few hundredths of a second.
    :param log: where its output goes; its end is shown when the server does not start.
    :param stop_signal: asks the server for its fast, orderly shutdown.
    """

    def __init__(
        self,
        *,
        name: str,
        home: Home,
        command: Sequence[str],
        ready: Callable[[], bool],
        log: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
        unprivileged: bool = False,
        cwd: Path | None = None,
    ) -> None:
        self.home = home
        self._name = name
        self._command = command
        self._ready = ready
        self._log = log
        self._stop_signal = stop_signal
        self._unprivileged = unprivileged
        self._cwd = cwd
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id, None while it does not run."""
        return self._child.pid if self.running and self._child is not None else None

    @property
    def running(self) -> bool:
        """Whether the process exists; not whether it answers."""
        return self._child is not None and self._child.poll() is None

    def start(self, *extra: str, patience: float = 120.0) -> None:
        """Start the server, with ``extra`` arguments this once, and return when it is ready.

        :param patience: seconds until a server that neither answers nor ends is given up.
        :raises ProblemError: CF207, with the end of its log, if it ends or does not become ready.
        """
        if self.running:
            return
        self._child = child = self.home.spawn(
            [*self._command, *extra], unprivileged=self._unprivileged, log=self._log, cwd=self._cwd
        )
        waited = 0.0
        while waited < patience:
            if self._ready():
                return
            try:
                child.wait(0.03)
                break
            except subprocess.TimeoutExpired:
                waited += 0.03
        self.kill()
        raise ProblemError(
            Problem(
                code="CF207",
                what=f"{self._name} did not start ({_ending(child.returncode, waited)}).",
                why="the last lines of its log:\n" + self.log_tail(),
                instead="remove the cause, or leave this server out.",
            )
        )

    def stop(self, *, patience: float = 60.0) -> None:
        """Shut the server down in good order; kill it if that takes more than ``patience`` seconds."""
        if self._child is None:
            return
        if self.running:
            self._child.send_signal(self._stop_signal)
        try:
            self._child.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL the server with every process of its own, and wait until it is gone."""
        if self._child is None:
            return
        # PostgreSQL's backends outlive their postmaster for a moment and keep its shared memory, so that
        # it could not be started again at once.
        family = [self._child.pid, *_descendants(self._child.pid)] if self.running else []
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._child.wait()
        # A child of its own may take a moment longer to end, and PostgreSQL's keep its shared memory until then.
        while any(_started(pid) for pid in family):
            threading.Event().wait(0.005)

    def log_tail(self, lines: int = 15) -> str:
        """The last ``lines`` of what the server wrote."""
        with contextlib.suppress(OSError):
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
        return "(no log)"


def _ending(returncode: int | None, waited: float) -> str:
    if returncode is None or returncode == -signal.SIGKILL:
        return f"no answer for {waited:.0f} s"
    return f"exit code {returncode}"
