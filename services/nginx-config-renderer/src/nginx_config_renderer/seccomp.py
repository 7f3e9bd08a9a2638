"""Seccomp: a process gives up system calls, for ever, and needs no privilege for it (seccomp(2)).

What is given up here is all that reaches beyond the process: connections, signals, other processes, and starting any. `bind` says that the
address is in use, whatever it is: nginx -t takes that for good (ngx_open_listening_sockets), so a configuration can be tried with its real
ports, beside the nginx that has them and without a right to them, and takes no client away.
"""

import ctypes
import errno
import os
import struct
from typing import Final

_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _ABOVE, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF: ld [k]; jeq k; jge k; ret k
_NUMBER, _ARCH = 0, 4  # where they stand in seccomp_data
_OTHER_ABI: Final = 0x40000000  # x32

_AS_IN_USE: Final = "bind"
_NOT_THERE: Final = "clone3"  # glibc takes clone instead then, which is seen
_CALLS: Final = {
    "x86_64": (
        0xC000003E,
        {"bind": 49, "clone3": 435, "connect": 42, "accept": 43, "sendto": 44, "sendmsg": 46, "listen": 50, "clone": 56, "fork": 57}
        | {"vfork": 58, "kill": 62, "ptrace": 101, "rt_sigqueueinfo": 129, "tkill": 200, "tgkill": 234, "add_key": 248}
        | {"request_key": 249, "keyctl": 250, "unshare": 272, "accept4": 288, "rt_tgsigqueueinfo": 297, "sendmmsg": 307}
        | {"setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "bpf": 321, "userfaultfd": 323}
        | {"pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_getfd": 438},
    ),
    "aarch64": (
        0xC00000B7,
        {"bind": 200, "clone3": 435, "listen": 201, "accept": 202, "connect": 203, "sendto": 206, "sendmsg": 211, "add_key": 217}
        | {"request_key": 218, "keyctl": 219, "clone": 220, "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138}
        | {"unshare": 97, "ptrace": 117, "rt_tgsigqueueinfo": 240, "accept4": 242, "setns": 268, "sendmmsg": 269}
        | {"process_vm_readv": 270, "process_vm_writev": 271, "bpf": 280, "userfaultfd": 282, "pidfd_send_signal": 424}
        | {"io_uring_setup": 425, "pidfd_getfd": 438},
    ),
}

_libc: Final = ctypes.CDLL(None, use_errno=True)


def no_new_privileges() -> None:
    """From here on no program that is started has more rights than we have."""
    _prctl(_NO_NEW_PRIVS, 1)


def restrict() -> None:
    """Gives those system calls up. Needs no_new_privs. Raises OSError where that is not possible."""
    machine = os.uname().machine
    if machine not in _CALLS:
        raise OSError(errno.ENOSYS, f"seccomp: the system calls of {machine} are not known here")
    program = _program(*_CALLS[machine])
    code = ctypes.create_string_buffer(program, len(program))
    _prctl(_SECCOMP, _FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))


def _program(arch: int, calls: dict[str, int]) -> bytes:
    """In BPF. A jump says how many instructions are left out if it is so, and if not."""
    lines = [_line(_LOAD, _ARCH), _line(_EQUAL, arch, 1, 0), _line(_RETURN, _KILL)]
    lines += [_line(_LOAD, _NUMBER), _line(_ABOVE, _OTHER_ABI, 0, 1), _line(_RETURN, _KILL)]
    for name, number in sorted(calls.items()):
        answer = {_AS_IN_USE: errno.EADDRINUSE, _NOT_THERE: errno.ENOSYS}.get(name, errno.EACCES)
        lines += [_line(_EQUAL, number, 0, 1), _line(_RETURN, _ERRNO | answer)]
    return b"".join([*lines, _line(_RETURN, _ALLOW)])


def _line(code: int, value: int, so: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, so, otherwise, value)


def _prctl(option: int, value: int, argument: bytes | int = 0) -> None:
    third = argument if isinstance(argument, bytes) else ctypes.c_long(argument)
    if _libc.prctl(option, ctypes.c_ulong(value), third, ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise OSError(ctypes.get_errno(), f"prctl: {os.strerror(ctypes.get_errno())}")
