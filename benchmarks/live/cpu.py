"""Processor time of a system: of the process that began it, and of all that this one began."""

import contextlib

import psutil

Times = dict[tuple[int, float], float]  # user and system seconds by process id and start


def cpu_times(pid: int) -> Times:
    """What each process of the tree has used so far."""
    found: Times = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                used = process.cpu_times()
                found[process.pid, process.create_time()] = used.user + used.system
    return found


def used_s(before: Times, after: Times) -> float:
    """Seconds used between two looks; of a process that has ended meanwhile nothing is known."""
    return sum(seconds - before.get(process, 0.0) for process, seconds in after.items())
