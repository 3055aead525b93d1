"""Which sysctls a host can have of its own, and how their values may be written.

A container has a network namespace, not a kernel: a sysctl that is not per namespace would change the whole machine, so it
is refused here. A vm has a kernel of its own and may set what that has. The tables are what Linux 6.18 shows in a fresh
network namespace against the machine's own /proc/sys/net; a well-formed ``net.`` name (on a vm, any name) that is in neither
and near none is let through, since kernels differ, and the host reads back what it set.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from difflib import get_close_matches

from testbed.errors import InputError, did_you_mean

WAY_OUT = "kind: vm, a host with a kernel of its own, will take it"

# What the kernel says of a sysctl (proc_sys_call_handler and the handler behind it), in words: reason, way out.
_DOCUMENTATION = "the kernel's Documentation/networking/ip-sysctl.rst tells which values there are"
_REASONS = {
    "ENOENT": (
        "the kernel has no such sysctl in a network namespace",
        f"see `sysctl -a` on a host; if it is the whole kernel's: {WAY_OUT}",
    ),
    "EACCES": ("it is not per network namespace, so a container cannot have its own", WAY_OUT),
    "EROFS": ("it is not per network namespace, so a container cannot have its own", WAY_OUT),
    "EPERM": ("the kernel does not let a container set it", WAY_OUT),
    "EINVAL": ("the kernel refuses the value", _DOCUMENTATION),
    "ERANGE": ("the value is out of range", _DOCUMENTATION),
}
# And where the kernel is the host's own.
_REASONS_OF_GUESTS = {
    **_REASONS,
    "ENOENT": ("{}'s kernel has no such sysctl", "see `sysctl -a` on a host with that kernel; `kernel:` chooses another"),
    **dict.fromkeys(("EACCES", "EROFS", "EPERM"), ("{}'s kernel does not let anybody set it", _DOCUMENTATION)),
}

# Whose values are names of something that the kernel may not have: ENOENT is about the value.
_NAMES_OF_OTHERS = {
    "net.ipv4.tcp_congestion_control": "the sysctl net.ipv4.tcp_available_congestion_control lists what there is",
    "net.core.default_qdisc": "a queueing discipline of the host's kernel, like fq_codel",
}

LONGEST_NAME = 200
LONGEST_VALUE = 4000  # one page, which is what the kernel reads at once, less what is around it
NAME_PATTERN = r"^[a-z][a-z0-9_-]*(\.[A-Za-z0-9_-]+)+$"

# Per network namespace and writable there.
_OF_NETWORK = {
    "net.bridge": """bridge-nf-call-arptables bridge-nf-call-ip6tables bridge-nf-call-iptables bridge-nf-filter-pppoe-tagged
        bridge-nf-filter-vlan-tagged bridge-nf-pass-vlan-input-dev""",
    "net.core": """optmem_max rps_default_mask somaxconn tstamp_allow_data txrehash xfrm_acq_expires xfrm_aevent_etime
        xfrm_aevent_rseqth xfrm_larval_drop""",
    "net.ipv4": """fib_multipath_hash_fields fib_multipath_hash_policy fib_multipath_hash_seed fib_multipath_use_neigh
        fib_notify_on_flag_change fwmark_reflect icmp_echo_enable_probe icmp_echo_ignore_all icmp_echo_ignore_broadcasts
        icmp_errors_use_inbound_ifaddr icmp_ignore_bogus_error_responses icmp_msgs_burst icmp_msgs_per_sec icmp_ratelimit
        icmp_ratemask igmp_link_local_mcast_reports igmp_max_memberships igmp_max_msf igmp_qrv ip_autobind_reuse
        ip_default_ttl ip_dynaddr ip_early_demux ip_forward ip_forward_update_priority ip_forward_use_pmtu
        ip_local_port_range ip_local_reserved_ports ip_no_pmtu_disc ip_nonlocal_bind ip_unprivileged_port_start
        ipfrag_high_thresh ipfrag_low_thresh ipfrag_max_dist ipfrag_time nexthop_compat_mode ping_group_range
        raw_l3mdev_accept tcp_abort_on_overflow tcp_adv_win_scale tcp_app_win tcp_autocorking tcp_backlog_ack_defer
        tcp_base_mss tcp_challenge_ack_limit tcp_child_ehash_entries tcp_comp_sack_delay_ns tcp_comp_sack_nr
        tcp_comp_sack_slack_ns tcp_congestion_control tcp_dsack tcp_early_demux tcp_early_retrans tcp_ecn tcp_ecn_fallback
        tcp_ecn_option tcp_ecn_option_beacon tcp_fack tcp_fastopen tcp_fastopen_blackhole_timeout_sec tcp_fastopen_key
        tcp_fin_timeout tcp_frto tcp_fwmark_accept tcp_invalid_ratelimit tcp_keepalive_intvl tcp_keepalive_probes
        tcp_keepalive_time tcp_l3mdev_accept tcp_limit_output_bytes tcp_max_reordering tcp_max_syn_backlog
        tcp_max_tw_buckets tcp_migrate_req tcp_min_rtt_wlen tcp_min_snd_mss tcp_min_tso_segs tcp_moderate_rcvbuf
        tcp_mtu_probe_floor tcp_mtu_probing tcp_no_metrics_save tcp_no_ssthresh_metrics_save tcp_notsent_lowat
        tcp_orphan_retries tcp_pacing_ca_ratio tcp_pacing_ss_ratio tcp_pingpong_thresh tcp_plb_cong_thresh tcp_plb_enabled
        tcp_plb_idle_rehash_rounds tcp_plb_rehash_rounds tcp_plb_suspend_rto_sec tcp_probe_interval tcp_probe_threshold
        tcp_recovery tcp_reflect_tos tcp_reordering tcp_retrans_collapse tcp_retries1 tcp_retries2 tcp_rfc1337 tcp_rmem
        tcp_rto_max_ms tcp_rto_min_us tcp_sack tcp_shrink_window tcp_slow_start_after_idle tcp_stdurg
        tcp_syn_linear_timeouts tcp_syn_retries tcp_synack_retries tcp_syncookies tcp_thin_linear_timeouts tcp_timestamps
        tcp_tso_rtt_log tcp_tso_win_divisor tcp_tw_reuse tcp_tw_reuse_delay tcp_window_scaling tcp_wmem
        tcp_workaround_signed_windows udp_child_hash_entries udp_early_demux udp_l3mdev_accept udp_rmem_min udp_wmem_min
        xfrm4_gc_thresh""",
    "net.ipv4.route": "min_adv_mss min_pmtu mtu_expires",
    "net.ipv4.conf.*": """accept_local accept_redirects accept_source_route arp_accept arp_announce arp_evict_nocarrier
        arp_filter arp_ignore arp_notify bc_forwarding bootp_relay disable_policy disable_xfrm drop_gratuitous_arp
        drop_unicast_in_l2_multicast force_igmp_version forwarding igmpv2_unsolicited_report_interval
        igmpv3_unsolicited_report_interval ignore_routes_with_linkdown log_martians medium_id promote_secondaries proxy_arp
        proxy_arp_pvlan route_localnet rp_filter secure_redirects send_redirects shared_media src_valid_mark tag""",
    "net.ipv4.neigh.*": """anycast_delay app_solicit base_reachable_time base_reachable_time_ms delay_first_probe_time
        gc_stale_time interval_probe_time_ms locktime mcast_resolicit mcast_solicit proxy_delay proxy_qlen retrans_time
        retrans_time_ms ucast_solicit unres_qlen unres_qlen_bytes""",
    "net.ipv6": """anycast_src_echo_reply auto_flowlabels bindv6only fib_multipath_hash_fields fib_multipath_hash_policy
        fib_notify_on_flag_change flowlabel_consistency flowlabel_reflect flowlabel_state_ranges fwmark_reflect idgen_delay
        idgen_retries ioam6_id ioam6_id_wide ip6frag_high_thresh ip6frag_low_thresh ip6frag_time ip_nonlocal_bind
        max_dst_opts_length max_dst_opts_number max_hbh_length max_hbh_opts_number seg6_flowlabel xfrm6_gc_thresh""",
    "net.ipv6.icmp": """echo_ignore_all echo_ignore_anycast echo_ignore_multicast error_anycast_as_unicast ratelimit
        ratemask""",
    "net.ipv6.route": """gc_elasticity gc_interval gc_min_interval gc_min_interval_ms gc_thresh gc_timeout max_size
        min_adv_mss mtu_expires skip_notify_on_dev_down""",
    "net.ipv6.conf.*": """accept_dad accept_ra accept_ra_defrtr accept_ra_from_local accept_ra_min_hop_limit
        accept_ra_min_lft accept_ra_mtu accept_ra_pinfo accept_ra_rt_info_max_plen accept_ra_rt_info_min_plen
        accept_ra_rtr_pref accept_redirects accept_source_route accept_untracked_na addr_gen_mode autoconf dad_transmits
        disable_ipv6 disable_policy drop_unicast_in_l2_multicast drop_unsolicited_na enhanced_dad force_forwarding
        force_mld_version force_tllao forwarding hop_limit ignore_routes_with_linkdown ioam6_enabled ioam6_id
        ioam6_id_wide keep_addr_on_down max_addresses max_desync_factor mldv1_unsolicited_report_interval
        mldv2_unsolicited_report_interval mtu ndisc_evict_nocarrier ndisc_notify ndisc_tclass optimistic_dad proxy_ndp
        ra_defrtr_metric ra_honor_pio_life ra_honor_pio_pflag regen_max_retry regen_min_advance router_probe_interval
        router_solicitation_delay router_solicitation_interval router_solicitation_max_interval router_solicitations
        rpl_seg_enabled seg6_enabled seg6_require_hmac stable_secret suppress_frag_ndisc temp_prefered_lft temp_valid_lft
        use_oif_addrs_only use_optimistic use_tempaddr""",
    "net.ipv6.neigh.*": """anycast_delay app_solicit base_reachable_time base_reachable_time_ms delay_first_probe_time
        gc_stale_time interval_probe_time_ms locktime mcast_resolicit mcast_solicit proxy_delay proxy_qlen retrans_time
        retrans_time_ms ucast_solicit unres_qlen unres_qlen_bytes""",
    "net.mptcp": """add_addr_timeout allow_join_initial_addr_port blackhole_timeout checksum_enabled close_timeout enabled
        path_manager pm_type scheduler stale_loss_cnt syn_retrans_before_tcp_fallback""",
    "net.netfilter": """nf_conntrack_acct nf_conntrack_checksum nf_conntrack_events nf_conntrack_frag6_high_thresh
        nf_conntrack_frag6_low_thresh nf_conntrack_frag6_timeout nf_conntrack_generic_timeout nf_conntrack_gre_timeout
        nf_conntrack_gre_timeout_stream nf_conntrack_icmp_timeout nf_conntrack_icmpv6_timeout nf_conntrack_log_invalid
        nf_conntrack_sctp_timeout_closed nf_conntrack_sctp_timeout_cookie_echoed nf_conntrack_sctp_timeout_cookie_wait
        nf_conntrack_sctp_timeout_established nf_conntrack_sctp_timeout_heartbeat_sent
        nf_conntrack_sctp_timeout_shutdown_ack_sent nf_conntrack_sctp_timeout_shutdown_recd
        nf_conntrack_sctp_timeout_shutdown_sent nf_conntrack_tcp_be_liberal nf_conntrack_tcp_ignore_invalid_rst
        nf_conntrack_tcp_loose nf_conntrack_tcp_max_retrans nf_conntrack_tcp_timeout_close
        nf_conntrack_tcp_timeout_close_wait nf_conntrack_tcp_timeout_established nf_conntrack_tcp_timeout_fin_wait
        nf_conntrack_tcp_timeout_last_ack nf_conntrack_tcp_timeout_max_retrans nf_conntrack_tcp_timeout_syn_recv
        nf_conntrack_tcp_timeout_syn_sent nf_conntrack_tcp_timeout_time_wait nf_conntrack_tcp_timeout_unacknowledged
        nf_conntrack_timestamp nf_conntrack_udp_timeout nf_conntrack_udp_timeout_stream nf_hooks_lwtunnel""",
    "net.netfilter.nf_log": "0 1 2 3 4 5 6 7 8 9 10",
    "net.unix": "max_dgram_qlen",
}
# Per IPC namespace.
_OF_IPC = {
    "kernel": "msgmax msgmnb msgmni sem shm_rmid_forced shmall shmmax shmmni",
    "fs.mqueue": "msg_default msg_max msgsize_default msgsize_max queues_max",
}
# Writable on the machine, absent from a network namespace: one value for all.
_OF_MACHINE = {
    "net": "nf_conntrack_max",
    "net.core": """bpf_jit_enable bpf_jit_harden bpf_jit_kallsyms bpf_jit_limit busy_poll busy_read default_qdisc dev_weight
        dev_weight_rx_bias dev_weight_tx_bias devconf_inherit_init_net fb_tunnels_only_for_init_net flow_limit_cpu_bitmap
        flow_limit_table_len gro_normal_batch high_order_alloc_disable max_skb_frags mem_pcpu_rsv message_burst message_cost
        netdev_budget netdev_budget_usecs netdev_max_backlog netdev_tstamp_prequeue
        netdev_unregister_timeout_secs rps_sock_flow_entries skb_defer_max warnings""",
    "net.ipv4": """cipso_cache_bucket_size cipso_cache_enable cipso_rbm_optfmt cipso_rbm_strictvalid fib_sync_mem
        inet_peer_maxttl inet_peer_minttl inet_peer_threshold ipfrag_secret_interval tcp_low_latency
        tcp_max_orphans tcp_mem udp_mem""",
    "net.ipv4.route": """error_burst error_cost gc_elasticity gc_interval gc_min_interval gc_min_interval_ms gc_thresh
        gc_timeout max_size redirect_load redirect_number redirect_silence""",
    "net.ipv4.neigh.default": "gc_interval gc_thresh1 gc_thresh2 gc_thresh3",
    "net.ipv6.neigh.default": "gc_interval gc_thresh1 gc_thresh2 gc_thresh3",
    "net.ipv6": "calipso_cache_bucket_size calipso_cache_enable ip6frag_secret_interval mld_max_msf mld_qrv",
    "net.netfilter": "nf_log_all_netns",
}
# Visible in a namespace, writable only on the machine.
_READ_ONLY_IN_NAMESPACE = {
    "net.core": "rmem_default rmem_max wmem_default wmem_max",
    "net.ipv4": "tcp_allowed_congestion_control",
    "net.netfilter": "nf_conntrack_buckets nf_conntrack_expect_max nf_conntrack_max",
}
# Facts and actions, which no kernel lets anybody set to a value.
_READ_ONLY = {
    "net.core": "netdev_rss_key",
    "net.ipv4": "tcp_available_congestion_control tcp_available_ulp tcp_ehash_entries udp_hash_entries",
    "net.ipv4.conf.*": "mc_forwarding",
    "net.ipv6.conf.*": "mc_forwarding",
    "net.mptcp": "available_path_managers available_schedulers",
    "net.netfilter": "nf_conntrack_count",
}
_ACTIONS = {"net.ipv4.route": "flush", "net.ipv6.route": "flush"}

# Values that are not one whole number: so many of them, or a form of their own.
_HOW_MANY = {
    "net.ipv4.tcp_rmem": 3,
    "net.ipv4.tcp_wmem": 3,
    "net.ipv4.tcp_mem": 3,
    "net.ipv4.udp_mem": 3,
    "net.ipv4.ip_local_port_range": 2,
    "net.ipv4.ping_group_range": 2,
    "kernel.sem": 4,
}
_FORMS = {
    "net.ipv4.tcp_congestion_control": ("[a-z0-9_]+", "the name of a congestion control, like cubic or reno"),
    "net.ipv4.tcp_fastopen_key": (
        "[0-9a-fA-F]{1,8}(-[0-9a-fA-F]{1,8}){3}(,[0-9a-fA-F]{1,8}(-[0-9a-fA-F]{1,8}){3})?",
        "four groups of hexadecimal digits with '-' between, twice with a ',' for two keys",
    ),
    "net.ipv4.ip_local_reserved_ports": (
        "[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*",
        "ports and ranges of ports, like 8080,9000-9010",
    ),
    "net.ipv4.tcp_allowed_congestion_control": ("[a-z0-9_]+( [a-z0-9_]+)*", "names of congestion controls, like cubic reno"),
    "net.core.default_qdisc": ("[a-z0-9_]+", "the name of a queueing discipline, like fq_codel"),
    "net.core.flow_limit_cpu_bitmap": ("[0-9a-fA-F]+(,[0-9a-fA-F]+)*", "a mask of processors in hexadecimal"),
    "net.core.rps_default_mask": ("[0-9a-fA-F]+(,[0-9a-fA-F]+)*", "a mask of processors in hexadecimal"),
    "net.ipv6.icmp.ratemask": (
        "[0-9]{1,3}(-[0-9]{1,3})?(,[0-9]{1,3}(-[0-9]{1,3})?)*",
        "types of ICMPv6 and ranges of them, like 0-1,3-127",
    ),
    "net.ipv6.conf.*.stable_secret": ("[0-9a-fA-F:]+", "an IPv6 address"),
    "net.mptcp.path_manager": ("[a-z0-9_]+", "the name of a path manager"),
    "net.mptcp.scheduler": ("[a-z0-9_]+", "the name of a scheduler"),
    **{f"net.netfilter.nf_log.{family}": ("[A-Za-z0-9_]+", "the name of a logger, or NONE") for family in range(11)},
}


def _names(table: dict[str, str]) -> Iterator[str]:
    for parent, children in table.items():
        for child in children.split():
            yield f"{parent}.{child}"


SETTABLE = frozenset((*_names(_OF_NETWORK), *_names(_OF_IPC)))
OF_MACHINE = frozenset(_names(_OF_MACHINE))
READ_ONLY_IN_NAMESPACE = frozenset(_names(_READ_ONLY_IN_NAMESPACE))
READ_ONLY = frozenset(_names(_READ_ONLY))
ACTIONS = frozenset(_names(_ACTIONS))
_OF_SOME_KERNEL = SETTABLE | OF_MACHINE | READ_ONLY_IN_NAMESPACE
_KNOWN = _OF_SOME_KERNEL | READ_ONLY | ACTIONS
_NAMES_OF_THE_HOST = ("kernel.hostname", "kernel.domainname")
_NEIGHBOUR_DEFAULTS = ("net.ipv4.neigh.default.", "net.ipv6.neigh.default.")
# What else is in /proc/sys; the last ones are those of s390x.
_OTHER_TREES = ("abi", "crypto", "debug", "dev", "fs", "kernel", "sunrpc", "user", "vm", "appldata", "s390", "s390dbf")


def check(name: object, value: object, *, own_kernel: bool = False) -> str:
    """The text to write into the sysctl ``name`` of a host for ``value``: text, a number, true or false, or a list of numbers.

    Raises :class:`InputError` when the host cannot have it (without a kernel of its own, whatever is not per namespace), or when
    the value cannot be right.
    """
    return _check_value(check_name(name, own_kernel=own_kernel), value)


def check_name(name: object, *, own_kernel: bool = False) -> str:
    """The same for the name alone."""
    text = _check_form(name)
    if not own_kernel:
        _refuse_the_machines(text)
    _check_that_it_is_one(text)
    return text


def why_refused(name: str, reason: str, *, whose: str = "") -> tuple[str, str]:
    """Why the kernel did not take a sysctl, in words, and the way out. ``reason`` is the errno's name, or whatever was said;
    ``whose`` kernel it is, where that is the host's own."""
    if name in _NAMES_OF_OTHERS and reason == "ENOENT":
        return "the kernel has nothing of that name", _NAMES_OF_OTHERS[name]
    words, way_out = (_REASONS_OF_GUESTS if whose else _REASONS).get(reason, ("", ""))
    return (words.format(whose), way_out) if words else (f"the kernel did not take it: {reason}", "")


def _check_form(name: object) -> str:
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not re.fullmatch(NAME_PATTERN, name) or "\n" in name:
        text = str(name)[:100]
        near = _nearest(text.strip().strip("./").replace("/", "."))
        hint = "names with dots, as sysctl prints them, like net.core.somaxconn"
        raise InputError(f"{text!r} is not the name of a sysctl{f', did you mean {near!r}?' if near else ''}", hint=hint)
    return name


def _refuse_the_machines(name: str) -> None:
    """What a host without a kernel of its own cannot set, since all hosts and the machine share it."""
    general = _general(name)
    if general in OF_MACHINE:
        raise InputError(f"'{name}' is not per network namespace: setting it would change the whole machine", hint=WAY_OUT)
    if general in READ_ONLY_IN_NAMESPACE:
        raise InputError(f"'{name}' is read-only in a network namespace: only the whole machine has it", hint=WAY_OUT)
    if name.startswith(_NEIGHBOUR_DEFAULTS):
        hint = f"an interface has it: {name.replace('.default.', '.eth0.')}; or {WAY_OUT}"
        raise InputError(f"'{name}' is not per network namespace: setting it would change the whole machine", hint=hint)
    if _tree(name) in _OTHER_TREES and name not in _NAMES_OF_THE_HOST and not _nearest(name):
        raise InputError(f"'{name}' is not per namespace: setting it would change the whole machine", hint=WAY_OUT)


def _check_that_it_is_one(name: str) -> None:
    """Whether some kernel may have a sysctl of that name and lets it be set."""
    general = _general(name)
    if general in READ_ONLY:
        raise InputError(f"'{name}' is read-only on every kernel", hint="it can be read, and not set")
    if general in ACTIONS:
        raise InputError(f"'{name}' is an action, not a parameter: it keeps no value", hint="run it in the host's command: instead")
    if general in _OF_SOME_KERNEL:
        return
    if name in _NAMES_OF_THE_HOST:
        raise InputError(f"'{name}' cannot be set: a host is called what the topology calls it", hint="rename the host")
    near = _nearest(name)
    if near:
        raise InputError(f"there is no sysctl '{name}', did you mean '{near}'?", hint="sysctl -a on a host lists what there is")
    tree = _tree(name)
    if tree != "net" and tree not in _OTHER_TREES:
        hint = "those of a host begin with net., those of a vm also with vm., kernel. or fs."
        raise InputError(f"there is no sysctl '{name}'{did_you_mean(tree, ['net', 'kernel', 'fs'])}", hint=hint)


def _tree(name: str) -> str:
    return name.partition(".")[0]


def _general(name: str) -> str:
    """The name in the tables: ``*`` stands for the interface (or all, or default)."""
    match = re.fullmatch(r"(net\.ipv[46]\.(?:conf|neigh))\.[^.]+\.([^.]+)", name)
    if match and name not in OF_MACHINE:  # the neighbour table's own limits are under its default, and nowhere else
        return f"{match[1]}.*.{match[2]}"
    return name


@functools.cache  # asking for the nearest of all names takes milliseconds, and many hosts have the same sysctls
def _nearest(name: str) -> str:
    """A known name that differs by a slip of the keyboard, or by its parent only; else nothing."""
    general = _general(name)
    if general in _KNOWN:
        return name
    interface = name.split(".")[3] if general != name else "all"
    close = get_close_matches(general, _KNOWN, n=1, cutoff=0.9)
    if not close and name.startswith(_NEIGHBOUR_DEFAULTS):
        close = get_close_matches(name, OF_MACHINE, n=1, cutoff=0.9)
    if not close:
        last = name.rpartition(".")[2]
        # Only where the parents may be mixed up: a new net.ipv6.conf key may well be called like an old IPv4 one.
        close = [one for one in sorted(SETTABLE) if one.rpartition(".")[2] == last and "*" not in one and len(last) > 4][:1]
        close = close or [one for one in get_close_matches(f"net.ipv4.{last}", SETTABLE, n=1, cutoff=0.9) if "." not in name]
    return close[0].replace("*", interface) if close else ""


def _check_value(name: str, value: object) -> str:
    general = _general(name)
    how_many = _HOW_MANY.get(general, 1)
    numeric = general in _OF_SOME_KERNEL and general not in _FORMS
    wanted = f"{how_many} whole numbers with spaces between" if how_many > 1 else "a whole number"
    hint = wanted if numeric else _FORMS[general][1] if general in _FORMS else "text or numbers on one line"
    text = _text_of(name, value, hint)
    if not text:
        raise InputError(f"the value of '{name}' is empty", hint=hint)
    if re.search(r"[^\x20-\x7e]", text):
        raise InputError(f"the value of '{name}' is not one line of plain text: {text[:60]!r}", hint=hint)
    if len(text) > LONGEST_VALUE:
        raise InputError(f"the value of '{name}' has {len(text)} characters", hint=f"at most {LONGEST_VALUE}")
    if numeric:
        words = text.split()
        if len(words) != how_many or not all(re.fullmatch("-?[0-9]{1,20}", word) for word in words):
            raise InputError(f"'{text[:60]}' cannot be the value of '{name}'", hint=hint)
    elif general in _FORMS and not re.fullmatch(_FORMS[general][0], text):
        raise InputError(f"'{text[:60]}' cannot be the value of '{name}'", hint=hint)
    return text


def _text_of(name: str, value: object, hint: str) -> str:
    match value:
        case bool():
            return str(int(value))
        case str():
            return {"true": "1", "false": "0"}.get(value, " ".join(value.split(" ")).strip(" \t"))
        case int():
            return str(value)
        case list() | tuple() if all(isinstance(one, str | int) and not isinstance(one, bool) for one in value):
            return " ".join(str(one).strip() for one in value)
        case None:
            raise InputError(f"'{name}' has no value", hint=hint)
        case _:
            raise InputError(f"the value of '{name}' is neither text nor a number", hint=hint)
