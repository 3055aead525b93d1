"""Carrying out a difference: all of it, or nothing.

Everything that is done leaves behind how it is undone. When anything fails, and on Ctrl-C, all of it is undone, last
first, and the lab is what it was: absent, or as its file said before.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from testbed.engine import STDERR, ContainerSpec, Engine
from testbed.errors import EngineError, LabError, TestbedError
from testbed.host import Host
from testbed.host_container import files_archive, host_spec, hosts_file, why_init_ended, why_not_started
from testbed.lab import (
    LAB,
    NETWORK,
    NOT_RESTORED,
    READY,
    ROLE,
    SETTINGS,
    SWITCH,
    WAITING,
    WORKERS,
    Parts,
    bridge_name,
    container_name,
    devices,
    ip_batch,
    make_host,
    make_switch,
    network_name,
    side_by_side,
)
from testbed.links import put_in, take_out
from testbed.lock import Lock
from testbed.network import Segment, mac_of, machine_resolver
from testbed.plan import Difference, Existing, Plan, Settings, to_label
from testbed.ready import wait_until_ready

Progress = Callable[[str, str], None]
"""``progress(what, step)``: what is being done now for a host, network or image. Called from several threads."""

SWITCH_CAPABILITIES = ("NET_ADMIN", "NET_RAW", "SETUID", "SETGID", "KILL", "DAC_OVERRIDE")
# Nothing of the switch itself is to be seen on the lab's networks.
SWITCH_SYSCTLS = ("net.ipv6.conf.default.disable_ipv6=1",)
UPLINK_MAC_BEGINS = 0x06


def silent(what: str, step: str) -> None:
    """Progress that nobody wants to see."""


class Change:
    """One difference being carried out, with everything that takes to undo it."""

    def __init__(
        self,
        engine: Engine,
        parts: Parts,
        there: Existing,
        plan: Plan,
        difference: Difference,
        files: Mapping[str, Mapping[str, bytes]],
        switch_image: str,
        progress: Progress,
        *,
        labels: Mapping[str, str],
    ) -> None:
        self.engine, self.parts, self.there, self.plan, self.difference = engine, parts, there, plan, difference
        self.files, self.switch_image, self.progress = files, switch_image, progress
        self.lab = plan.lab
        self.labels = labels  # on every part that is made, beside those that tell what it is
        self.switch: Host | None = None
        self.cancelled = threading.Event()
        self.made: list[str] = []  # containers, in the order they were made
        self.undo: list[Callable[[], Any]] = []
        self.opened: list[Host] = []  # connections that were made to ask whether a host is ready
        self.warnings: list[str] = []  # what went otherwise than it should, and yet well
        self.obsolete: list[str] = []  # containers to be removed once all has gone well

    def carry_out(self, held: Lock) -> None:
        """Do it, or undo what was done and raise. Ctrl-C while it works undoes it too."""
        held.at_work()
        # In a thread of its own, so that Ctrl-C never falls between a request to the engine and its answer.
        with ThreadPoolExecutor(1) as worker:
            running = worker.submit(self._carry_out)
            try:
                running.result()
            except BaseException as error:
                with undisturbed():
                    self._give_up([running])
                    self.progress(self.lab, "undoing what was done")
                    failures = self._roll_back()
                if not failures:
                    held.done()
                elif isinstance(error, TestbedError):
                    left = f"undoing failed as well ({failures[0]}); testbed down {self.lab} removes what is left"
                    error.hint = f"{error.hint}\n  {left}".strip()
                raise
            finally:
                for host in (*self.opened, *([self.switch] if self.switch else [])):
                    host.close()
        side_by_side(self.engine.remove_container, self.obsolete)

    def _give_up(self, running: Collection[Future[None]]) -> None:
        """Make the workers stop: whatever they wait for ends with the hosts. What they ask of the switch ends by itself,
        but the engine may never tell that a switch has gone in the middle of it."""
        self.cancelled.set()
        while not all(one.done() for one in running):
            side_by_side(self.engine.remove_container, [one for one in self.made if not self.switch or one != self.switch.container])
            wait(running, timeout=0.05)

    def _roll_back(self) -> list[str]:
        """Undo everything, last first; gives what could not be undone."""
        failures = []
        if self.switch and self.switch.container in self.made:
            self.switch.close()
            self.switch = None
        for step in (lambda: side_by_side(self.engine.remove_container, self.made), *reversed(self.undo)):
            try:
                step()
            except (TestbedError, OSError) as error:
                failures.append(str(error))
        return failures

    def _carry_out(self) -> None:
        difference = self.difference
        side_by_side(self.engine.remove_container, [one.id for one in self.parts.retired])
        switch_works = self.there.switch
        if switch_works and self.parts.switch:
            self.switch = make_switch(self.engine, self.lab, self.parts.switch.id)
        if difference.renamed and difference.kept_hosts:
            self._teach_names(self.plan.hosts)
            self.undo.append(lambda: self._teach_names(self.there.hosts))
        for name in (*difference.gone_hosts, *difference.changed_hosts):
            self._retire(name)
        for name in (*difference.gone_networks, *difference.changed_networks):
            self._remove_network(self.there.segments[name])
        side_by_side(lambda name: self._make_network(self.plan.segments[name]), (*difference.changed_networks, *difference.new_networks))
        if not switch_works:
            self._make_switch()
        for name in self.plan.segments if not switch_works else (*difference.changed_networks, *difference.new_networks):
            self._make_bridge(self.plan.segments[name])
        self._make_hosts((*difference.changed_hosts, *difference.new_hosts))

    # Networks and the switch

    def _make_network(self, segment: Segment) -> None:
        self.progress(segment.name, "making the network")
        subnets = [(str(segment.subnet), str(segment.gateway))]
        if segment.subnet6:
            subnets.append((str(segment.subnet6), str(segment.gateway6)))
        made = self.engine.create_network(
            network_name(self.lab, segment.name),
            labels={LAB: self.lab, NETWORK: segment.name, SETTINGS: to_label(segment), **self.labels},
            subnets=subnets,
            mtu=segment.mtu,
            internal=not segment.external,
            ipv6=segment.subnet6 is not None,
        )
        self.undo.append(lambda: self.engine.remove_network(made))
        if segment.external and self.switch:
            self.engine.connect(made, self.switch.container)
            self.undo.append(lambda: self.engine.disconnect(made, self._switch().container))

    def _remove_network(self, segment: Segment) -> None:
        network = self.parts.networks[segment.name]
        if self.switch:
            self.switch.run(["ip", "link", "delete", bridge_name(segment.name)]).check(where="the switch")
            if segment.external:
                self.engine.disconnect(network.id, self.switch.container)

        def put_back() -> None:
            self._make_network(segment)
            if self.switch:
                self._make_bridge(segment)

        self.engine.remove_network(network.id)
        self.undo.append(put_back)

    def _make_switch(self) -> None:
        self.progress(SWITCH, "starting")
        if self.parts.switch:
            self.engine.remove_container(self.parts.switch.id)
        external = [network_name(self.lab, one.name) for one in self.plan.segments.values() if one.external]
        spec = ContainerSpec(
            name=container_name(self.lab),
            image=self.switch_image,
            argv=[part for one in SWITCH_SYSCTLS for part in ("--sysctl", one)],
            labels={LAB: self.lab, ROLE: SWITCH},
            hostname=SWITCH,
            network=external[0] if external else None,
            capabilities=SWITCH_CAPABILITIES,
            # It puts the hosts' ends of the links into their namespaces, which it names by their process ids.
            pid_mode="host",
        )
        made = self._create(spec)
        for network in external[1:]:
            self.engine.connect(network, made)
        self.engine.start(made)
        self.switch = make_switch(self.engine, self.lab, made)

    def _make_bridge(self, segment: Segment) -> None:
        """The network's bridge in the switch; an external network's bridge gets the switch's own link to Docker's network as a port.

        It is up only when all of that is done: a bridge that is not is one of a killed `up`.
        """
        bridge = bridge_name(segment.name)
        self._in_switch(f"link add {bridge} mtu {segment.mtu} type bridge")
        if segment.external:
            uplink = self._uplink(segment)
            # Docker gave it a MAC made of an address, as the hosts' are: one of them has the same, and frames for that
            # host would end here.
            mac = mac_of(segment.gateway, first=UPLINK_MAC_BEGINS)
            self._in_switch(f"address flush dev {uplink}", f"link set {uplink} address {mac} mtu {segment.mtu} master {bridge} up")
        self._in_switch(f"link set {bridge} up")

    def _uplink(self, segment: Segment) -> str:
        """The switch's device on Docker's network: the one with an address of its subnet."""
        found = devices(self._switch(), "-4", "address", "show", "to", str(segment.subnet))
        if len(found) != 1:
            raise LabError(f"the switch has no link to Docker's network '{network_name(self.lab, segment.name)}'")
        return found[0]

    def _switch(self) -> Host:
        if self.switch is None:
            raise LabError(f"lab '{self.lab}' has no switch")
        return self.switch

    def _in_switch(self, *commands: str) -> None:
        """Commands of ip(8), in one batch."""
        ip_batch(self._switch(), commands).check(where="the switch")

    # Hosts

    def _retire(self, name: str) -> None:
        """Stop a host and give its name away; its container is there until all has gone well."""
        container, settings = self.parts.hosts[name], self.there.hosts[name]
        if container.state != "running" or name in self.there.broken:
            self.engine.remove_container(container.id)  # nothing to go back to
            return
        self.progress(name, "stopping")
        self.engine.kill(container.id)
        self.engine.rename(container.id, f"{container.name}.retired")
        self._unplug(settings)
        self.obsolete.append(container.id)

        def revive() -> None:
            self.engine.rename(container.id, container.name)
            before, since = len(self.engine.written(container.id, stream=STDERR)), time.time()
            self.engine.start(container.id)
            self._plug_when_it_waits(name, container.id, settings, wrote_before=before)
            if settings["ready"]:
                with make_host(self.engine, self.lab, name, container.id, settings) as host:
                    wait_until_ready(self.engine, host, settings, since=since)

        self.undo.append(revive)

    def _make_hosts(self, names: Sequence[str]) -> None:
        with ThreadPoolExecutor(WORKERS) as pool:
            running = [pool.submit(self._make_host, name) for name in names]
            done, rest = wait(running, return_when=FIRST_EXCEPTION)
            failed = [error for one in done if (error := one.exception())]
            if failed:
                for one in rest:
                    one.cancel()
                self._give_up(rest)
                raise failed[0]

    def _make_host(self, name: str) -> None:
        if self.cancelled.is_set():
            return
        settings = self.plan.hosts[name]
        self.progress(name, "starting")
        container = self._create(host_spec(self.lab, name, settings, self.plan.hosts))
        if self.files[name] or settings["external"]:
            resolver = machine_resolver() if self.engine.local else b""
            self.engine.put_archive(container, "/", files_archive(self.files[name], settings, resolver))
        try:
            self.engine.start(container)
        except EngineError as error:
            raise why_not_started(name, error, settings) from error
        self._plug_when_it_waits(name, container, settings)
        if settings["ready"]:
            self.progress(name, "waiting until it is ready")
            host = make_host(self.engine, self.lab, name, container, settings)
            self.opened.append(host)
            wait_until_ready(self.engine, host, settings, cancelled=self.cancelled)
        self.progress(name, "ready")

    def _create(self, spec: ContainerSpec) -> str:
        container = self.engine.create_container(replace(spec, labels={**spec.labels, **self.labels}))
        self.made.append(container)
        return container

    def _plug_when_it_waits(self, name: str, container: str, settings: Settings, *, wrote_before: int = 0) -> None:
        """When the host's first process waits for its links, put them in; then it configures them and is ready. The first
        ``wrote_before`` bytes are of the process that was there before this one."""
        wrote = b""
        for stream, data in self.engine.output(container, follow=True):
            if stream != STDERR:
                continue
            if wrote_before:
                wrote_before -= len(data)
                continue
            wrote += data
            if WAITING in data:
                self._plug(settings, self.engine.inspect(container).pid)
            if READY in data:
                if NOT_RESTORED in wrote:
                    self.warnings.append(
                        f"host '{name}' was booted, which takes long: its snapshot could not be restored (testbed logs {self.lab}/{name})"
                    )
                return
        if self.cancelled.is_set():
            raise LabError(f"host '{name}' was given up")
        raise why_init_ended(name, wrote, settings)

    def _plug(self, settings: Settings, pid: int) -> None:
        self._in_switch(*put_in(settings, pid))

    def _unplug(self, settings: Settings) -> None:
        if self.switch:
            for line in take_out(settings):
                self.switch.run(["ip", *line.split()])  # the kernel may have removed it already

    def _teach_names(self, hosts: Mapping[str, Settings]) -> None:
        """Tell the hosts that stay about the others."""

        def teach(name: str) -> None:
            settings = self.there.hosts[name]
            with make_host(self.engine, self.lab, name, self.parts.hosts[name].id, settings) as host:
                host.run(["tee", "/etc/hosts"], stdin=hosts_file(settings, hosts).encode()).check(where=f"host {name}")

        side_by_side(teach, self.difference.kept_hosts)


@contextmanager
def undisturbed() -> Iterator[None]:
    """No Ctrl-C until this is over. Only the main thread gets them, so elsewhere there is nothing to do."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
