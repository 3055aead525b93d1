"""What Debian packages' scripts would do, read from their text: as packages of Debian bookworm have it."""

from __future__ import annotations

import io
import tarfile

import pytest

from testbed import images, packages
from testbed.maintainer_scripts import Account, Link, accounts, alternatives, commands, with_accounts
from testbed.rootfs import Recipe

TELNET = """if [ "$1" = "configure" ] || [ "$1" = "abort-upgrade" ]; then
        update-alternatives --install /usr/bin/telnet telnet /usr/bin/inetutils-telnet 150 \\
            --slave /usr/share/man/man1/telnet.1.gz telnet.1.gz /usr/share/man/man1/inetutils-telnet.1.gz
fi
"""
PHP = """for binary in php phar; do
        update-alternatives \\
            --install /usr/bin/${binary} ${binary} /usr/bin/${binary}8.2 82
done
"""
JAVA = """priority=1711
basedir=/usr/lib/jvm/java-17
tools='java keytool'
if [ -n "$multiarch" ]; then
    priority=$(expr $priority - 1)
fi
for i in $tools
do
    update-alternatives --install /usr/bin/$i $i $basedir/bin/$i $priority $slave1
done
update-alternatives --install /usr/bin/jexec jexec $elsewhere/jexec $priority
"""
ONLY_ASKS = "update-alternatives --list x; update-alternatives --auto y\nupdate-alternatives --install /a a\n"


@pytest.mark.parametrize(
    ("script", "links"),
    [
        (
            TELNET,
            [
                ("/usr/bin/telnet", "/usr/bin/inetutils-telnet", 150),
                ("/usr/share/man/man1/telnet.1.gz", "/usr/share/man/man1/inetutils-telnet.1.gz", 150),
            ],
        ),
        (PHP, [("/usr/bin/php", "/usr/bin/php8.2", 82), ("/usr/bin/phar", "/usr/bin/phar8.2", 82)]),
        (
            JAVA,
            [
                ("/usr/bin/java", "/usr/lib/jvm/java-17/bin/java", 1711),
                ("/usr/bin/keytool", "/usr/lib/jvm/java-17/bin/keytool", 1711),
            ],
        ),
        (ONLY_ASKS, []),
    ],
    ids=["telnet", "php", "java", "only asks"],
)
def test_alternatives_are_read_through_variables_and_loops(script: str, links: list[tuple[str, str, int]]) -> None:
    assert alternatives(script) == [Link(*one) for one in links]


@pytest.mark.parametrize(
    ("script", "made"),
    [
        ("adduser --quiet --system --group --no-create-home --home /var/lib/nsd nsd", [Account("nsd", "nsd", "/var/lib/nsd")]),
        ("adduser --system --no-create-home --home=/run/sshd sshd >/dev/null", [Account("sshd", "nogroup", "/run/sshd")]),
        (
            "getent group g > /dev/null || addgroup --system g\nadduser --system --ingroup g --shell /bin/false --gecos 'a b' u || true",
            [Account("g", "g", is_user=False), Account("u", "g", shell="/bin/false")],
        ),
        (
            "/usr/sbin/useradd --system --gid nogroup -d /x -s /bin/sh u\ngroupadd -r w",
            [Account("u", "nogroup", "/x", "/bin/sh"), Account("w", "w", is_user=False)],
        ),
        ("NAME=u\nif ! getent passwd $NAME; then adduser --system --home $HERE $NAME; fi", [Account("u", "nogroup")]),
        ("adduser u g\nadduser --system $UNKNOWN\nadduser --system '`id -u`'\n# adduser x\necho adduser y", []),
    ],
)
def test_users_and_groups_are_read_as_their_commands_say(script: str, made: list[Account]) -> None:
    assert accounts(script) == made


def test_loops_that_are_no_lists_run_once_and_nested_ones_as_often_as_both() -> None:
    script = "while read x; do a $x; done\nfor i in 1 2; do\n for j in 3 4; do b $i$j; done\ndone\nc $i"
    assert list(commands(script)) == [["a", "$x"], ["b", "13"], ["b", "14"], ["b", "23"], ["b", "24"], ["c", "$i"]]


def test_a_quotation_over_several_lines_is_no_command() -> None:
    assert [words[0] for words in commands("echo 'adduser --system u\n is said'\nlast")] == ["last"]


def test_loops_without_end_are_cut_short() -> None:
    loops = "".join(f"for v{number} in 1 2 3 4 5 6 7 8 9; do " for number in range(9))
    assert 0 < len(list(commands(f"{loops} x; {'done; ' * 9}"))) <= 100


def test_accounts_get_the_first_ids_that_are_free_and_those_that_are_there_stay() -> None:
    passwd, group = "root:x:0:0:root:/root:/bin/sh\ntcpdump:x:101:101::/:/bin/false\n", "root:x:0:\nnogroup:x:65534:\ntcpdump:x:101:\n"
    made = [
        Account("a", "a"),
        Account("g", "g", is_user=False),
        Account("b", "g", "/b"),
        Account("root", "x"),
        Account("c", "0"),
        Account("a", "a"),
    ]
    users, groups = with_accounts(passwd, group, made)
    assert users.splitlines()[2:] == [
        "a:x:102:102::/nonexistent:/usr/sbin/nologin",
        "b:x:104:103::/b:/usr/sbin/nologin",
        "c:x:106:0::/nonexistent:/usr/sbin/nologin",
    ]
    assert groups.splitlines()[3:] == ["a:x:102:", "g:x:103:", "x:x:105:"]


def test_a_layer_gets_users_and_the_links_of_highest_priority_but_for_those_of_the_image() -> None:
    recipe = Recipe.of(images.sources())
    scripts = {
        "ncat": "update-alternatives --install /bin/nc nc /usr/bin/ncat 40",
        "one": "update-alternatives --install /bin/x x /bin/one 10 --slave /usr/bin/y y /usr/bin/nowhere",
        "two": "update-alternatives --install /usr/bin/x x /usr/bin/two 20\nadduser --system --group two",
    }
    laid, seen = io.BytesIO(), {"usr/bin/ncat", "usr/bin/one", "usr/bin/two"}
    with tarfile.open(fileobj=laid, mode="w") as tar:
        packages.configure(tar, scripts, recipe, seen)
    laid.seek(0)
    with tarfile.open(fileobj=laid) as tar:
        assert {one.name: one.linkname for one in tar} == {"etc/passwd": "", "etc/group": "", "usr/bin/x": "/usr/bin/two"}
        users = tar.extractfile("etc/passwd")
        assert users
        text = users.read().decode()
    assert text.startswith("root:x:0:0:")
    assert text.endswith("two:x:101:101::/nonexistent:/usr/sbin/nologin\n")
