"""Start, watch and end the real programs. Standard library only.

A program belongs to its `with` block: at the end of it the whole process group is gone, and also if the test
itself is killed. Its output goes to files, so it never blocks on a full pipe and can be read afterwards.
"""

import atexit
import collections
import concurrent.futures
import ctypes
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
import weakref

POLL_SECONDS = 0.01
# In the environment of all that this test starts, and of what that starts: how leftovers are found.
RUN_VARIABLE = "DATAWIRE_TEST_RUN"
RUN_ID = uuid.uuid4().hex

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
# The death signal comes when the starting *thread* ends, so one thread that lives as long as the test starts all.
_spawner = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")
_spawned = weakref.WeakSet()
_numbers = itertools.count(1)
_root, _keep = None, False

# How a program looks that found a bug in itself.
_CRASHES = {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL}
_SANITIZER = re.compile(r"^.*(?:(?:Address|Leak|Thread|UndefinedBehavior)Sanitizer|: runtime error: ).*$", re.M)

DwResult = collections.namedtuple("DwResult", "code stdout stderr")


class ProgramError(AssertionError):
    """A program did not do what the test relies on; the text holds the end of its output."""


def binary(name):
    """The path of a built program, or `name` itself if it is a path."""
    return name if "/" in name else os.path.join(os.environ["DATAWIRE_BIN"], name)


def scratch(name="test"):
    """A new empty folder, under $DATAWIRE_TEST_DIR or the build folder: on disc, if that is."""
    global _root
    if _root is None:
        base = os.environ.get("DATAWIRE_TEST_DIR")
        if not base:
            built = os.environ.get("DATAWIRE_BIN")
            base = os.path.join(os.path.dirname(built.rstrip("/")), "test-tmp") if built else tempfile.gettempdir()
        os.makedirs(base, exist_ok=True)
        _root = tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=base)
    path = os.path.join(_root, f"{next(_numbers):03d}-{name}")
    os.mkdir(path)
    return path


def keep_scratch():
    """Leaves the folders to whoever looks into a failure; where they are, None if there are none."""
    global _keep
    _keep = True
    return _root


@atexit.register
def _remove_scratch():
    if _root is not None and not _keep:
        shutil.rmtree(_root, ignore_errors=True)


def filesystem(path):
    """The type of the file system that holds `path`, such as ext4 or tmpfs."""
    path, best = os.path.realpath(path), ("", "unknown")
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            point, kind = line.split()[1:3]
            if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best[0]):
                best = (point, kind)
    return best[1]


def free_port():
    """A port that is free now and that the kernel gives to nobody by itself: for what must be named before it is bound."""
    while True:
        port = random.randrange(12_000, 30_000)  # below the ephemeral ones
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def eventually(condition, deadline=10.0, what=None):
    """The first true value of `condition()`. It may assert: that counts as not yet, and is shown if it stays so."""
    end = time.monotonic() + deadline
    last = None
    while True:
        try:
            value = condition()
            if value:
                return value
            last = f"last value: {value!r}"
        except AssertionError as error:
            last = f"last error: {error}"
        if time.monotonic() >= end:
            raise AssertionError(f"not within {deadline} s: {what or getattr(condition, '__name__', 'the condition')}; {last}")
        time.sleep(POLL_SECONDS)


def environment(extra=None):
    """The test's environment without what would point a program at somebody's own directory."""
    result = {key: value for key, value in os.environ.items()
              if key not in ("DATAWIRE_DIRECTORY", "DATAWIRE_DOMAIN", "DATAWIRE_DNS") and not key.startswith("DATAWIRE_TLS_")}
    result["XDG_CONFIG_HOME"] = "/nonexistent"
    result[RUN_VARIABLE] = RUN_ID
    result.update(extra or {})
    return result


def _spawn(command, **options):
    """Popen in an own process group that dies with this test."""
    parent = os.getpid()

    def bind_to_parent():
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(127)

    process = _spawner.submit(subprocess.Popen, command, start_new_session=True, preexec_fn=bind_to_parent,
                              **options).result()
    _spawned.add(process)
    return process


def _is_ours(pid, in_exec=False):
    """This test started it; in_exec: or it has no environment now, as for a moment in the middle of an exec."""
    with open(f"/proc/{pid}/environ", "rb") as file:
        environ = file.read()
    return f"{RUN_VARIABLE}={RUN_ID}".encode() in environ.split(b"\0") or (in_exec and not environ)


def _kill_group(process):
    """SIGKILL to all that is left of the program's process group."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)  # not reaped, so the number is still its own
        return
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getpgid(int(entry)) == process.pid and _is_ours(entry, in_exec=True):
                os.kill(int(entry), signal.SIGKILL)
        except OSError:
            pass


def _bug(code, stderr):
    """What shows that a program failed by its own fault, None if nothing does."""
    if code in _CRASHES:
        return f"ended by {signal.Signals(-code).name}"
    report = _SANITIZER.search(stderr)
    return report.group(0).strip() if report else None


def leftovers():
    """{pid: command line} of what this test started, directly or not, and that still runs."""
    found = {}
    spawned = {process.pid for process in list(_spawned) if process.poll() is None}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            if int(entry) not in spawned and not _is_ours(entry):
                continue
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                found[int(entry)] = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
    return found


class Program:
    """One program, started by `with` or Start. Can be started again after its end; the output files go on."""

    def __init__(self, name, *args, env=None, cwd=None, label=None):
        self.args = [str(arg) for arg in args]
        self.label = label or os.path.basename(name)
        self._name, self._env, self._cwd = name, env, cwd
        self._process = None
        self._folder = None
        self._since = {"stdout": 0, "stderr": 0}

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, failure, *_):
        self.end()
        if failure is None:
            self.check()

    def check(self):
        """Fails if the program crashed or a sanitizer reported anything since its first start."""
        with open(self.path("stderr"), "r", encoding="utf-8", errors="replace") as file:
            bug = _bug(self.poll(), file.read())
        if bug:
            raise ProgramError(f"{self.label}: {bug}\n{self.tail()}")

    def command(self):
        return [binary(self._name)] + self.args

    def start(self):
        if self._process is not None and self._process.poll() is None:
            raise ProgramError(f"{self.label} already runs")
        if self._folder is None:
            self._folder = scratch(self.label)
        else:
            self.check()
        self._since = {stream: os.path.getsize(self.path(stream)) if os.path.exists(self.path(stream)) else 0
                       for stream in self._since}
        with open(self.path("stdout"), "ab") as out, open(self.path("stderr"), "ab") as err:
            self._process = _spawn(self.command(), stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                   env=environment(self._env), cwd=self._cwd)
        return self

    def path(self, stream="stdout"):
        """The file that the stream goes to, over all starts."""
        return os.path.join(self._folder, stream)

    def output(self, stream="stdout"):
        """What the stream holds since the last start."""
        with open(self.path(stream), "rb") as file:
            file.seek(self._since[stream])
            return file.read().decode("utf-8", "replace")

    @property
    def pid(self):
        return self._process.pid

    def poll(self):
        """The exit code (negative: the signal), None while it runs."""
        return None if self._process is None else self._process.poll()

    def running(self):
        return self._process is not None and self._process.poll() is None

    def wait(self, deadline=10.0):
        """The exit code."""
        try:
            return self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise ProgramError(f"{self.label} still runs after {deadline} s\n{self.tail()}") from None

    def wait_for_line(self, pattern, deadline=10.0, stream="stdout"):
        """The match of the first whole line since the last start in which `pattern` is found."""
        end = time.monotonic() + deadline
        position = self._since[stream]
        while True:
            ended = not self.running()  # before the reading, so that the last words are seen
            with open(self.path(stream), "rb") as file:
                file.seek(position)
                whole = file.read().rpartition(b"\n")[0]
            if whole:
                position += len(whole) + 1
            for line in whole.decode("utf-8", "replace").split("\n"):
                match = re.search(pattern, line) if whole else None
                if match:
                    return match
            if ended:
                raise ProgramError(f"{self.label} ended with {self.poll()} before a line like '{pattern}'\n{self.tail()}")
            if time.monotonic() >= end:
                raise ProgramError(f"{self.label}: no line like '{pattern}' within {deadline} s\n{self.tail()}")
            time.sleep(POLL_SECONDS)

    def kill(self, sig=signal.SIGKILL):
        """Signals the program itself, not its children."""
        if self.running():
            self._process.send_signal(sig)

    def stop(self, deadline=10.0):
        """SIGTERM; the exit code."""
        self.kill(signal.SIGTERM)
        return self.wait(deadline)

    def kill9(self):
        """SIGKILL to the whole group; returns when the program is gone."""
        _kill_group(self._process)
        self._process.wait(10)

    def sigstop(self):
        """Freezes it; returns when the kernel shows it stopped, all its threads included."""
        self.kill(signal.SIGSTOP)
        eventually(self._stopped, 5, f"{self.label} is stopped")

    def sigcont(self):
        self.kill(signal.SIGCONT)

    def end(self):
        """No process of its group is left afterwards."""
        if self._process is not None:
            _kill_group(self._process)
            self._process.wait(10)

    def tail(self, lines=30):
        """The last lines of both streams, for a failure's text."""
        parts = []
        for stream in ("stdout", "stderr"):
            text = self.output(stream).splitlines()[-lines:]
            parts.append(f"--- {self.label} {stream}" + "".join(f"\n{line}" for line in text))
        return "\n".join(parts)

    def _stopped(self):
        states = []
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/stat", encoding="utf-8") as file:
                states.append(file.read().rsplit(")", 1)[1].split()[0])
        return all(state == "T" for state in states)


class Directory(Program):
    """A datawire-directory on loopback. Ports are chosen by the kernel; `ready()` waits until it serves."""

    def __init__(self, *args, data=None, node_id="n1", host="127.0.0.1", port=0, env=None, label=None):
        super().__init__("datawire-directory", env=env, label=label or f"directory-{node_id}")
        self.data = data or os.path.join(scratch(f"data-{node_id}"), "data")
        self.node_id, self.host = node_id, host
        self.extra = [str(arg) for arg in args]
        self.bound = {}
        self._port = port

    def command(self):
        initialised = os.path.isdir(self.data) and os.listdir(self.data)
        return [binary(self._name), "--data", self.data, *([] if initialised else ["--init"]), "--node-id", self.node_id,
                "--listen", f"{self.host}:{self._port}", "--http-listen", "127.0.0.1:0", *self.extra]

    def __enter__(self):
        super().__enter__()
        try:
            return self.ready()
        except BaseException:
            self.end()
            raise

    def __exit__(self, failure, *_):
        """Ends it the way an operator would, so that a stop that hangs, fails or leaks is seen by every test."""
        try:
            if failure is None and self.running():
                self.kill(signal.SIGTERM)
                self.sigcont()
                code = self.wait(30)
                if code != 0:
                    raise ProgramError(f"{self.label}: exit code {code} on SIGTERM\n{self.tail()}")
        finally:
            super().__exit__(failure)

    def ready(self, deadline=30.0):
        line = self.wait_for_line(r"^ready (.*)$", deadline)
        self.bound = dict(word.split("=", 1) for word in line.group(1).split())
        return self

    @property
    def address(self):
        """HOST:PORT of the native API, for --directory."""
        return self.bound["grpc"]

    @property
    def http(self):
        """HOST:PORT of metrics and health."""
        return self.bound["http"]

    def start_again(self, keep_port=True):
        """Starts on the same data, after its end."""
        self._port = int(self.address.rsplit(":", 1)[1]) if keep_port else 0
        self.start()
        return self.ready()

    def restart(self, keep_port=True):
        """Stops it with SIGTERM and starts it again."""
        self.stop()
        return self.start_again(keep_port)


def dw(*args, directory=None, timeout=30.0, stdin="", env=None):
    """Runs the CLI to its end: (code, stdout, stderr). `directory`: a Directory, or HOST:PORT[,...]."""
    command = [binary("dw")]
    if directory is not None:
        command += ["--directory", directory if isinstance(directory, str) else directory.address]
    command += [str(arg) for arg in args]
    process = _spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                     env=environment(env), text=True)
    try:
        stdout, stderr = process.communicate(stdin, timeout)
    except subprocess.TimeoutExpired:
        _kill_group(process)
        stdout, stderr = process.communicate()
        raise ProgramError(f"{' '.join(command)}: still running after {timeout} s\n{stdout}{stderr}") from None
    finally:
        _kill_group(process)
        process.wait(10)
    bug = _bug(process.returncode, stderr)
    if bug:
        raise ProgramError(f"{' '.join(command)}: {bug}\n{stdout}{stderr}")
    return DwResult(process.returncode, stdout, stderr)


def dw_json(*args, code=0, **options):
    """What `dw ... -o json` prints, parsed. `code`: the exit code it must have, None for any."""
    result = dw("-o", "json", *args, **options)
    shown = f"dw {' '.join(str(arg) for arg in args)}: exit code {result.code}\n{result.stdout}{result.stderr}"
    if code is not None and result.code != code:
        raise ProgramError(f"{shown}(expected {code})")
    try:
        return json.loads(result.stdout)
    except ValueError as error:
        raise ProgramError(f"{shown}not JSON: {error}") from None
