"""What a layer's process may read, reach and use up, as far as the system lets it be held.

    names = apart()                  # namespaces of its own: other processes and the network are not there
    names += hold(limits, readable=[...], writable=[...])

Each step is taken where it can be, and says what it has done in a word or two. Linux has them all: a namespace of
processes, which ends everything in it at once; one without a network; Landlock, which lets a process read and write
only below some folders; a user of its own, where the judge is root. Elsewhere there are limits of time and memory, and
a hook of Python that refuses to open a file or a connection, which code in C does not ask.
"""

import contextlib
import ctypes
import os
import platform
import resource
import secrets
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

NEW_NAMESPACES = 0x08000000 | 0x20000000 | 0x40000000
"""CLONE_NEWIPC, CLONE_NEWPID and CLONE_NEWNET, as linux/sched.h has them."""
NEW_MOUNTS = 0x00020000
NEW_USER = 0x10000000
PRIVATE = 1 << 14 | 1 << 18
"""MS_REC | MS_PRIVATE of linux/mount.h."""
NO_SUID_NO_DEV = 2 | 4
KILLED_WITH_PARENT, DUMPABLE, KEEP_CAPABILITIES, NO_NEW_PRIVILEGES, SUBREAPER, AMBIENT = 1, 4, 8, 38, 36, 47
"""Of prctl, as linux/prctl.h has them."""
READ_ANY_FILE = 1 << 2
"""CAP_DAC_READ_SEARCH: what a user of its own needs where Python lies in root's home. Landlock holds it."""
PROCESSES = 32
NO_OTHERS, OWN_PROC = "no other processes", "its own /proc"


@dataclass(frozen=True)
class Limits:
    """Of one layer."""

    seconds: float
    """Of all its calls, and of the processor."""
    megabytes: int
    """Of memory."""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    """A function of the C library. Raises OSError."""
    if getattr(_libc(), name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def prctl(option: int, value: int) -> None:
    """Nothing where the system has no prctl."""
    with contextlib.suppress(OSError, AttributeError):
        _call("prctl", option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


def leave_the_others() -> list[str]:
    """New namespaces, for the processes that this one starts from here on."""
    if sys.platform != "linux":
        return []
    user, group = os.getuid(), os.getgid()
    try:
        if user != 0:
            _call("unshare", NEW_USER)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        _call("unshare", NEW_NAMESPACES)
    except OSError:
        return []
    return [NO_OTHERS, "no network"]


def private_folders(temporary: str) -> list[str]:
    """In new namespaces: only its own processes in /proc, and a temporary folder in memory, which ends with them."""
    held = []
    with contextlib.suppress(OSError):
        _call("unshare", NEW_MOUNTS)
        _call("mount", None, b"/", None, ctypes.c_ulong(PRIVATE), None)
        _call("mount", b"proc", b"/proc", b"proc", ctypes.c_ulong(NO_SUID_NO_DEV), None)
        held.append(OWN_PROC)
        _call("mount", b"tmpfs", temporary.encode(), b"tmpfs", ctypes.c_ulong(NO_SUID_NO_DEV), b"size=512m,mode=1777")
        held.append("its own files")
        for sockets in ("/run", "/var", "/tmp/.X11-unix"):  # where other programs listen
            if Path(sockets).is_dir() and not Path(sockets).is_symlink():
                _call("mount", b"tmpfs", sockets.encode(), b"tmpfs", ctypes.c_ulong(NO_SUID_NO_DEV), b"size=4k")
    return held


def hold(
    limits: Limits,
    readable: Iterable[str],
    listed: Iterable[str],
    writable: Iterable[str],
    hidden: Iterable[str],
    among_others: bool,
) -> list[str]:
    """The last step before code of others runs. What is `listed` can be listed, and not read. Gives what is held.

    `among_others` says that other processes of its user run beside it. The limit of processes would count these too.
    """
    held = []
    prctl(NO_NEW_PRIVILEGES, 1)
    if _landlock(readable, listed, writable):
        held.append("no other files")
    _limit(limits, among_others and os.getuid() != 0)
    if _user_of_its_own(keep_reading=bool(held)):
        held.append("a user of its own")
    sys.addaudithook(Refusing([os.path.realpath(path) for path in hidden]))
    return held


def _limit(limits: Limits, any_number: bool) -> None:
    size = 2**20 * limits.megabytes
    seconds = max(1, int(limits.seconds) + 1)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**29, 2**29))
    with contextlib.suppress(OSError, ValueError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (_mapped() + size, _mapped() + size))
        if not any_number:
            resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))


def _mapped() -> int:
    """Bytes of addresses that the process has by now, mostly torch's code."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 2**34
    return pages * resource.getpagesize()


def _user_of_its_own(keep_reading: bool) -> bool:
    """Of root: a user that owns nothing, so that a limit of processes counts its own alone."""
    if os.getuid() != 0 or sys.platform != "linux":
        return False
    user = 2**20 + secrets.randbelow(2**20)
    try:
        prctl(KEEP_CAPABILITIES, 1)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except OSError:
        return False
    kept = READ_ANY_FILE if keep_reading else 0
    header, data = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", kept, kept, kept, 0, 0, 0)
    _call("capset", header, data)
    if kept:  # for a compiler that a layer starts, too
        with contextlib.suppress(OSError):
            _call("prctl", AMBIENT, *map(ctypes.c_ulong, (2, READ_ANY_FILE.bit_length() - 1, 0, 0)))
    return True


# Landlock: https://docs.kernel.org/userspace-api/landlock.html
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _READ_FILE, _READ_DIR, _WRITE_FILE, _TRUNCATE = 1 << 0, 1 << 2, 1 << 3, 1 << 1, 1 << 14
_READING = _EXECUTE | _READ_FILE | _READ_DIR
_FILES_OF = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All that can be done with files, by the version that has added to it."""
_OF_A_FILE = _EXECUTE | _READ_FILE | _WRITE_FILE | _TRUNCATE
_TCP, _SCOPES = 0b11, 0b11


def _landlock(readable: Iterable[str], listed: Iterable[str], writable: Iterable[str]) -> bool:
    """Nothing but what is below these can be read, or written; no connection, no signal to others."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64", "riscv64"):
        return False
    syscall = _libc().syscall
    version = syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    every = next(bits for of, bits in sorted(_FILES_OF.items(), reverse=True) if version >= of)
    rules = struct.pack("QQQ", every, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = syscall(_CREATE_RULESET, rules, size, 0)
    if ruleset < 0:
        return False
    try:
        for paths, allowed in ((readable, _READING), (listed, _READ_DIR), (writable, every)):
            for path in paths:
                with contextlib.suppress(OSError):
                    _allow(syscall, ruleset, path, allowed & every)
        return bool(syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(syscall: "ctypes._FuncPointer", ruleset: int, path: str, allowed: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not Path(path).is_dir():
            allowed &= _OF_A_FILE
        syscall(_ADD_RULE, ruleset, 1, struct.pack("<Qi", allowed, place), 0)
    finally:
        os.close(place)


class Refusing:
    """What Python is about to do: no file of the project is opened, and no connection made."""

    def __init__(self, hidden: list[str]):
        self.hidden = tuple(f"{path}{os.sep}" for path in hidden)

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"):
            raise PermissionError("a layer has no network")
        if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if f"{path}{os.sep}".startswith(self.hidden):
                raise PermissionError(f"{path} is hidden from a layer")
