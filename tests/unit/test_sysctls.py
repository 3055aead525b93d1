"""What a host may set: the tables, the names near them, and the values."""

import pytest

from testbed.errors import InputError
from testbed.sysctls import ACTIONS, OF_MACHINE, READ_ONLY, READ_ONLY_IN_NAMESPACE, SETTABLE, WAY_OUT, check


def refused(name: object, value: object = "1") -> InputError:
    with pytest.raises(InputError) as caught:
        check(name, value)
    return caught.value


def test_no_sysctl_is_in_two_tables() -> None:
    tables = [SETTABLE, OF_MACHINE, READ_ONLY_IN_NAMESPACE, READ_ONLY, ACTIONS]
    assert sum(map(len, tables)) == len(frozenset().union(*tables))


@pytest.mark.parametrize(
    "name",
    [
        "net.core.somaxconn",
        "net.ipv4.tcp_max_syn_backlog",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_tw_reuse_delay",
        "net.ipv4.conf.all.rp_filter",
        "net.ipv4.conf.eth0.rp_filter",
        "net.ipv4.neigh.eth0.locktime",
        "net.ipv6.conf.default.disable_ipv6",
        "net.bridge.bridge-nf-call-iptables",
        "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
        "net.unix.max_dgram_qlen",
        "kernel.msgmax",
        "kernel.shm_rmid_forced",
        "fs.mqueue.msg_max",
        # not in the tables and near none: the kernel knows
        "net.ipv4.a_parameter_of_tomorrow",
        "net.sctp.rto_initial",
        "net.mpls.platform_labels",
    ],
)
def test_what_a_namespace_has_can_be_set(name: str) -> None:
    assert check(name, 1) == "1"


@pytest.mark.parametrize(
    "name",
    [
        "net.core.netdev_max_backlog",
        "net.core.default_qdisc",
        "net.ipv4.tcp_mem",
        "net.ipv4.udp_mem",
        "net.ipv4.tcp_max_orphans",
        "net.ipv4.route.max_size",
        "net.ipv4.neigh.default.gc_thresh1",
        "net.nf_conntrack_max",
        "vm.swappiness",
        "fs.file-max",
        "kernel.pid_max",
        "user.max_net_namespaces",
        "debug.exception-trace",
    ],
)
def test_what_would_change_the_whole_machine_is_refused_with_the_way_out(name: str) -> None:
    error = refused(name)
    assert name in error.message
    assert "setting it would change the whole machine" in error.message
    assert WAY_OUT in error.hint


@pytest.mark.parametrize(
    "name",
    [
        "net.core.somaxconn",
        "net.core.rmem_max",
        "net.core.netdev_max_backlog",
        "net.ipv4.neigh.default.gc_thresh1",
        "net.ipv4.neigh.default.base_reachable_time_ms",
        "net.ipv6.neigh.default.locktime",
        "net.ipv4.conf.eth0.rp_filter",
        "net.netfilter.nf_conntrack_max",
        "vm.swappiness",
        "fs.file-max",
        "kernel.pid_max",
        "kernel.msg_next_id",
        "user.max_net_namespaces",
        "s390.topology",
        "net.ipv4.a_parameter_of_tomorrow",
    ],
)
def test_a_kernel_of_its_own_has_all_of_them(name: str) -> None:
    assert check(name, 1, own_kernel=True) == "1"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("net.ipv4.tcp_mem", [1, 2, 3], "1 2 3"),
        ("net.core.default_qdisc", "fq_codel", "fq_codel"),
        ("net.core.flow_limit_cpu_bitmap", "00000000,0000000f", "00000000,0000000f"),
        ("net.ipv4.tcp_allowed_congestion_control", "reno cubic", "reno cubic"),
        ("kernel.core_pattern", "|/usr/bin/keep %p", "|/usr/bin/keep %p"),
        ("kernel.printk", [4, 4, 1, 7], "4 4 1 7"),
        ("vm.panic_on_oom", True, "1"),
    ],
)
def test_a_value_for_a_kernel_of_its_own_becomes_the_text_to_write(name: str, value: object, text: str) -> None:
    assert check(name, value, own_kernel=True) == text


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("net.core.rmem_max", "many", "'many' cannot be the value"),
        ("net.ipv4.tcp_mem", 5, "'5' cannot be the value"),
        ("net.core.default_qdisc", "fq codel", "'fq codel' cannot be the value"),
        ("vm.swappiness", "", "is empty"),
        ("vm.swappiness", "1\n2", "not one line"),
        ("vm swappiness", 1, "is not the name of a sysctl"),
        ("net.core.rmem_mx", 1, "did you mean 'net.core.rmem_max'?"),
        ("net.ipv4.neigh.default.gc_thres1", 1, "did you mean 'net.ipv4.neigh.default.gc_thresh1'?"),
        ("kernel.somaxconn", 1, "did you mean 'net.core.somaxconn'?"),
        ("nett.zzz", 1, "did you mean 'net'?"),
        ("kernel.hostname", "b", "a host is called what the topology calls it"),
        ("net.ipv4.route.flush", 1, "is an action"),
        ("net.core.netdev_rss_key", 1, "read-only on every kernel"),
    ],
)
def test_a_kernel_of_its_own_takes_no_nonsense(name: str, value: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check(name, value, own_kernel=True)
    assert message in caught.value.message
    assert WAY_OUT not in caught.value.hint


def test_a_limit_of_the_neighbour_table_is_not_offered_for_an_interface() -> None:
    assert refused("net.ipv4.neigh.default.gc_thresh1").hint == WAY_OUT
    assert "net.ipv4.neigh.eth0.locktime" in refused("net.ipv4.neigh.default.locktime").hint


@pytest.mark.parametrize("name", ["net.core.rmem_max", "net.core.wmem_default", "net.ipv4.tcp_allowed_congestion_control"])
def test_what_a_namespace_only_shows_is_refused_with_the_way_out(name: str) -> None:
    error = refused(name)
    assert "read-only in a network namespace" in error.message
    assert error.hint == WAY_OUT


@pytest.mark.parametrize(
    "name",
    [
        "net.ipv4.tcp_available_congestion_control",
        "net.ipv4.tcp_ehash_entries",
        "net.ipv4.conf.eth0.mc_forwarding",
        "net.ipv4.tcp_available_ulp",
        "net.core.netdev_rss_key",
    ],
)
def test_what_no_kernel_takes_has_no_way_out(name: str) -> None:
    error = refused(name)
    assert "read-only on every kernel" in error.message
    assert WAY_OUT not in error.hint


def test_an_action_is_no_parameter() -> None:
    assert "is an action" in refused("net.ipv4.route.flush").message


@pytest.mark.parametrize("name", ["kernel.hostname", "kernel.domainname"])
def test_a_hosts_name_is_not_set_by_sysctl(name: str) -> None:
    assert "a host is called what the topology calls it" in refused(name).message


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("net.core.somaxcon", "net.core.somaxconn"),
        ("net.core.rmem_maxx", "net.core.rmem_max"),
        ("net.ipv4.tcp_sync_retries", "net.ipv4.tcp_syn_retries"),
        ("net.ipv4.tcp_syncookie", "net.ipv4.tcp_syncookies"),
        ("net.ipv4.conf.eth0.rp_filtr", "net.ipv4.conf.eth0.rp_filter"),
        ("net.ipv4.somaxconn", "net.core.somaxconn"),
        ("net.ipv6.tcp_rmem", "net.ipv4.tcp_rmem"),
        ("net/core/somaxconn", "net.core.somaxconn"),
        ("/net/core/somaxconn", "net.core.somaxconn"),
        ("somaxconn", "net.core.somaxconn"),
        ("tcp_syncookies", "net.ipv4.tcp_syncookies"),
        ("tcp_fin_timout", "net.ipv4.tcp_fin_timeout"),
        ("net.core.somaxconn\n", "net.core.somaxconn"),
        ("kernel.msgmxa", "kernel.msgmax"),
    ],
)
def test_a_slip_of_the_keyboard_is_told(name: str, near: str) -> None:
    assert f"did you mean '{near}'?" in refused(name).message


@pytest.mark.parametrize(
    "name", ["", ".", "net", "net.", "net..core", "net.core.so maxconn", "net.core.\0", "Net.core.somaxconn", "a=b", 5, None]
)
def test_a_malformed_name_is_refused(name: object) -> None:
    error = refused(name)
    assert "is not the name of a sysctl" in error.message
    assert "net.core.somaxconn" in error.hint


def test_a_name_outside_every_tree_is_refused() -> None:
    assert "there is no sysctl 'nett.zzz'" in refused("nett.zzz").message
    assert "did you mean 'net'?" in refused("nett.zzz").message


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("net.core.somaxconn", 128, "128"),
        ("net.core.somaxconn", "128", "128"),
        ("net.core.somaxconn", " 128 ", "128"),
        ("net.ipv4.tcp_syncookies", True, "1"),
        ("net.ipv4.tcp_syncookies", "false", "0"),
        ("net.ipv4.conf.all.rp_filter", -1, "-1"),
        ("net.ipv4.tcp_rmem", [4096, 131072, 6291456], "4096 131072 6291456"),
        ("net.ipv4.tcp_rmem", "4096 131072 6291456", "4096 131072 6291456"),
        ("net.ipv4.ip_local_port_range", ("1024", 2048), "1024 2048"),
        ("kernel.sem", "1 2 3 4", "1 2 3 4"),
        ("net.ipv4.tcp_congestion_control", "reno", "reno"),
        ("net.ipv4.ip_local_reserved_ports", "8080,9000-9010", "8080,9000-9010"),
        ("net.ipv4.tcp_fastopen_key", "0-1-2-ff", "0-1-2-ff"),
        ("net.ipv6.conf.eth0.stable_secret", "fd00::1", "fd00::1"),
        ("net.ipv6.icmp.ratemask", "0-1,3-127", "0-1,3-127"),
        ("net.netfilter.nf_log.2", "NONE", "NONE"),
        ("net.tomorrow.text", "any text", "any text"),
    ],
)
def test_a_value_becomes_the_text_to_write(name: str, value: object, text: str) -> None:
    assert check(name, value) == text


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("net.core.somaxconn", "many", "a whole number"),
        ("net.core.somaxconn", "1 2", "a whole number"),
        ("net.core.somaxconn", "1.5", "a whole number"),
        ("net.core.somaxconn", 1.5, "a whole number"),
        ("net.core.somaxconn", "0x10", "a whole number"),
        ("net.core.somaxconn", "9" * 21, "a whole number"),
        ("net.core.somaxconn", "", "a whole number"),
        ("net.core.somaxconn", " ", "a whole number"),
        ("net.core.somaxconn", None, "a whole number"),
        ("net.core.somaxconn", [], "a whole number"),
        ("net.core.somaxconn", {"a": 1}, "a whole number"),
        ("net.core.somaxconn", [[1]], "a whole number"),
        ("net.core.somaxconn", "1\n2", "a whole number"),
        ("net.core.somaxconn", "1\0", "a whole number"),
        ("net.ipv4.tcp_rmem", "4096", "3 whole numbers"),
        ("net.ipv4.ip_local_port_range", [1, 2, 3], "2 whole numbers"),
        ("net.ipv4.tcp_congestion_control", "not one", "cubic"),
        ("net.ipv4.ip_local_reserved_ports", "1;2", "8080"),
        ("net.tomorrow.text", "two\nlines", "one line"),
        ("net.tomorrow.text", "", "one line"),
    ],
)
def test_a_value_that_cannot_be_is_refused(name: str, value: object, wanted: str) -> None:
    error = refused(name, value)
    assert name in error.message
    assert wanted in error.hint
