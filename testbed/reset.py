"""Making the hosts of a lab what they were when it came up, in place: many times faster than taking it down and up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from testbed.agent import Reset
from testbed.host import Host
from testbed.host_container import INIT, hosts_file
from testbed.lab import Lab, ip_batch, side_by_side
from testbed.links import put_in, set_aside
from testbed.lock import lock
from testbed.ready import wait_until_ready

ANSWER_S = 60  # for a guest whose snapshot cannot be restored, which is booted


def reset(lab: Lab, hosts: Iterable[str] | None = None) -> None:
    """Make hosts (None: all of the lab's) new: processes, sockets, counters, firewall, queueing disciplines, sysctls and
    files are as the topology says, and their commands have been started again. What else runs in the lab is left alone.

    A host in a container gets a new network namespace and root file system, a vm another guest from the snapshot. The
    lab's connections stay usable; commands that ran there raise :class:`LabError`. It returns when all are ready.
    Raises :class:`LabError` when a host cannot be reset, and is gone then; `up` mends it. Not reset: what is mounted
    from the machine, and what was done in the switch.
    """
    chosen = {name: lab.host(name) for name in (lab.hosts if hosts is None else hosts)}
    with lock(lab.name, lab.engine.socket) as held:
        held.at_work()
        _reset(lab, chosen)
        held.done()


def _reset(lab: Lab, chosen: Mapping[str, Host]) -> None:
    names, since = list(chosen), time.time()
    containers = [name for name in names if not lab.settings[name]["guest"]]
    pids = dict(zip(containers, side_by_side(lambda name: chosen[name].pid, containers), strict=True))
    hosts_files = {name: hosts_file(lab.settings[name], lab.settings) for name in names}
    resets = {name: host.ask_for_reset(hosts_files[name]) for name, host in chosen.items()}
    try:
        _join(lab, {name: pids[name] for name in containers if lab.settings[name]["links"]}, resets)
        for one in resets.values():
            one.wait_done()
    except BaseException:
        # A host that is not through with it is nothing that one could go on with.
        for name, one in resets.items():
            if not one.done:
                lab.engine.kill(chosen[name].container)
        raise

    def finish(name: str) -> None:
        host, settings = chosen[name], lab.settings[name]
        if settings["guest"]:
            host.run([INIT, "--wait"], timeout_s=ANSWER_S).check(where=f"host {name}")
            host.write("/etc/hosts", hosts_files[name].encode())
        wait_until_ready(lab.engine, host, settings, since=since)

    side_by_side(finish, [name for name in names if lab.settings[name]["guest"] or lab.settings[name]["ready"]])


def _join(lab: Lab, pids: Mapping[str, int], resets: Mapping[str, Reset]) -> None:
    """Give hosts new links, to the namespaces that their first processes have from when they ask for links."""
    if not pids:
        return
    switch, settings = lab.own_switch, lab.settings
    ip_batch(switch, (line for name in pids for line in set_aside(settings[name])), force=True)
    for name in pids:
        resets[name].wait_for_links()
    new = (line for name, pid in pids.items() for line in put_in(settings[name], pid))
    ip_batch(switch, new).check(where="the switch, which was to put in the hosts' links,")
