"""TEMPORARY: stands in until the real `reset` is there, which replaces this whole file. It only ends what runs on container hosts, and
takes firewall rules and qdiscs away."""

from __future__ import annotations

from collections.abc import Iterable

from testbed.lab import Lab

_SCRIPT = """
for d in /proc/[0-9]*; do
    p=${d#/proc/}
    [ "$p" = 1 ] || [ "$p" = $$ ] && continue
    case $(readlink "$d/exe") in '' | /usr/lib/testbed/agent) ;; *) kill -9 "$p" 2>/dev/null ;; esac
done
nft flush ruleset 2>/dev/null
tc qdisc del dev eth0 root 2>/dev/null
true
"""


def reset(lab: Lab, hosts: Iterable[str] | None = None) -> None:
    for name in hosts or lab.hosts:
        lab.host(name).run(["sh", "-c", _SCRIPT], timeout_s=10).check(where=f"host {name}")
