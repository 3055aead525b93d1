"""The pytest plugin with labs that do nothing: which lab a test gets, when it is reset, and what is said when something is wrong."""

from __future__ import annotations

import os
import re
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from testbed import pytest_labs, pytest_marker, pytest_plugin, pytest_report, pytest_run, shipped

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
PLUGIN = ("-p", "testbed.pytest_plugin")
TESTINFRA = ("-p", "testinfra.plugin")
XDIST = ("-p", "xdist", "-n", "2")
# The plugin's modules are those of this process also after a run inside it, which drops what it imported itself.
assert all((pytest_labs, pytest_marker, pytest_plugin, pytest_report, pytest_run))


class Project:
    """A project of a user, with tests that pytest runs."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.conftest()

    def conftest(self, text: str = "", **fake: Any) -> None:
        """Its conftest.py, which makes the labs fake ones."""
        arguments = "".join(f", {name}={value!r}" for name, value in fake.items())
        self.pytester.makeconftest(f"import tests.fake_labs\ntests.fake_labs.use({str(self.path / 'asked')!r}{arguments})\n{text}")

    def test(self, text: str, *options: str, name: str = "test_it", plugins: tuple[str, ...] = ()) -> pytest.RunResult:
        """Run one file of tests."""
        self.write(text, name=name)
        return self.run(*options, plugins=plugins)

    def write(self, text: str, *, name: str) -> None:
        self.pytester.makepyfile(**{name: f"import pytest, testbed\nfrom pytest import mark\nasked = {str(self.path / 'asked')!r}\n{text}"})

    def run(self, *options: str, plugins: tuple[str, ...] = ()) -> pytest.RunResult:
        return self.pytester.runpytest_inprocess(*PLUGIN, *plugins, "-rA", *options)

    @property
    def asked(self) -> list[str]:
        """What was asked of the labs, with the run's own part of their names taken out."""
        return [re.sub(r"-[0-9a-f]{6}(?=$|-gw)", "", one) for one in (self.path / "asked").read_text().splitlines()[1:]]

    def junit(self) -> dict[str, list[tuple[str, str]]]:
        """The properties of each test in the JUnit file that it wrote."""
        cases = ET.parse(self.path / "junit.xml").getroot().iter("testcase")
        return {case.attrib["name"]: [(one.attrib["name"], one.attrib["value"]) for one in case.iter("property")] for case in cases}


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    # Only the plugins that a test names, and not those that happen to be installed here.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    # In CI pytest's summary has whole messages, so each of them would be said twice.
    for variable in ("PYTEST_ADDOPTS", "CI", "BUILD_NUMBER"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    monkeypatch.setattr(pytest_run, "make_provider", pytest_run.make_provider)  # the project puts its own there
    return Project(pytester)


def said(result: pytest.RunResult) -> str:
    return result.stdout.str()


# Which topology


def test_a_topology_is_a_shipped_one_or_a_file_beside_the_test_or_below_the_root_or_an_object(project: Project) -> None:
    text = "networks: {lan: }\nhosts: {client: , server: }\n"
    for directory in ("tests", "labs"):
        (project.path / directory).mkdir()
    (project.path / "tests" / "beside.yaml").write_text(text)
    (project.path / "labs" / "below.yaml").write_text(text)
    project.pytester.makeini("[pytest]\n")
    project.pytester.makepyfile(
        **{
            "tests/test_it": """
            import pytest, testbed
            from pytest import mark

            @mark.topology("pair")
            def test_shipped(lab):
                assert lab.name.startswith("pair-")

            @mark.topology("beside.yaml")
            def test_beside(lab):
                assert lab.name.startswith("beside-")

            @mark.topology("labs/below.yaml")
            def test_below(lab):
                assert lab.name.startswith("below-")

            @mark.topology(testbed.Topology.build({"name": "mine", "networks": {"lan": None}, "hosts": {"a": None}}))
            def test_object(lab):
                assert lab.name.startswith("mine-")
            """
        }
    )
    project.run().assert_outcomes(passed=4)


def test_the_closest_marker_counts(project: Project) -> None:
    result = project.test(
        """
pytestmark = mark.topology("pair")

def test_module(lab):
    assert lab.name.startswith("pair")

@mark.topology("star")
class TestClass:
    def test_class(self, lab):
        assert lab.name.startswith("star")

    @mark.topology("routed")
    def test_function(self, lab):
        assert lab.name.startswith("routed")

@mark.topology("dual-stack")
class TestDerived(TestClass):
    def test_derived(self, lab):
        assert lab.name.startswith("dual-stack")

class TestInherits(TestClass):
    def test_inherits(self, lab):
        assert lab.name.startswith("star")
"""
    )
    # What it inherits says star; its own marker counts more.
    failed = re.findall(r"^FAILED (\S+)", said(result), re.MULTILINE)
    assert failed == ["test_it.py::TestDerived::test_class"]


def test_the_same_marker_twice_is_no_problem(project: Project) -> None:
    project.test('@mark.topology("pair")\n@mark.topology("pair")\ndef test(lab): pass').assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ('mark.topology("pear")', ["no topology that comes with testbed is called 'pear', did you mean 'pair'?", *shipped.names()]),
        ('mark.topology("pear.yaml")', ["there is no topology file pear.yaml", "looked for in", "pair"]),
        ('mark.topology("wrong.yaml")', ["wrong.yaml", "hosts", "there is no host"]),
        ("mark.topology()", ["topology() is not what the marker takes", '@pytest.mark.topology("pair")']),
        ('mark.topology("pair", "star")', ["topology('pair', 'star') is not what the marker takes"]),
        ('mark.topology("pair", scope="module")', ["is not what the marker takes", "reset=", "hosts="]),
        ("mark.topology(7)", ["topology(7): 7 is no topology", "testbed.Topology"]),
        ('mark.topology("pair", reset="test")', ["'test' is nothing that a lab could be reset for", "function, class, module, session"]),
        ('mark.topology("pair", hosts="servre")', ["no host of topology 'pair' is called 'servre', did you mean 'server'?", "client"]),
        ('mark.topology("pair", hosts=[])', ["hosts= is the name of a host, or a list of names", "client, server"]),
    ],
)
def test_a_wrong_marker_is_said_when_its_test_is_set_up(project: Project, marker: str, words: list[str]) -> None:
    (project.path / "wrong.yaml").write_text("networks: {lan: }\nhosts: {}\n")
    result = project.test(f"@{marker}\ndef test(lab): pass\n@{marker}\ndef test_host(host): pass\ndef test_other(): pass")
    result.assert_outcomes(passed=1, errors=2)
    for word in words:
        assert word in said(result)
    assert "Traceback" not in said(result)
    assert "pytest_labs.py" not in said(result)


def test_two_topologies_for_one_test_are_both_named(project: Project) -> None:
    result = project.test('@mark.topology("pair")\n@mark.topology("star")\ndef test(lab): pass')
    result.assert_outcomes(errors=1)
    assert "a test has one topology, and here are 2 markers: topology('pair') and topology('star')" in said(result)


@pytest.mark.parametrize("fixture", ["lab", "host"])
def test_a_fixture_without_a_marker_says_how_to_set_one(project: Project, fixture: str) -> None:
    result = project.test(f"def test({fixture}): pass")
    result.assert_outcomes(errors=1)
    assert f"the fixture '{fixture}' needs a topology" in said(result)
    assert '@pytest.mark.topology("pair")' in said(result)


def test_a_lab_asked_for_by_name_needs_a_marker_too(project: Project) -> None:
    result = project.test(
        """
def test_without(request):
    request.getfixturevalue("lab")

@mark.topology("pair")
def test_with(request):
    assert request.getfixturevalue("lab").name.startswith("pair")
"""
    )
    result.assert_outcomes(passed=1, failed=1)
    assert "the fixture 'lab' needs a topology" in said(result)


def test_a_lab_is_not_parametrized_by_the_test_itself(project: Project) -> None:
    text = '@mark.topology("pair")\n@mark.parametrize("lab", ["star"], indirect=True)\ndef test(lab): pass'
    assert "takes its topology from @pytest.mark.topology(...), not from parametrize" in said(project.test(text))


# Which host


def test_a_test_of_a_host_runs_on_each_of_them_or_on_those_that_the_marker_names(project: Project) -> None:
    result = project.test(
        """
@mark.topology("pair")
def test_all(host, lab):
    assert host.startswith(lab.name)

@mark.topology("pair", hosts="server")
def test_one(host):
    assert host.endswith("/server")
""",
    )
    result.assert_outcomes(passed=3)
    for name in ("test_all[client]", "test_all[server]", "test_one[server]"):
        assert f"PASSED test_it.py::{name}\n" in said(result)


def test_beside_testinfra_a_host_is_of_the_marker_or_testinfras(project: Project) -> None:
    result = project.test(
        """
@mark.topology("pair")
def test_marked(host):
    assert host.endswith(("/client", "/server"))

def test_unmarked(host, made):
    assert type(host).__module__ == "testinfra.host"
    assert made is host

@pytest.fixture(scope="module")
def made(host):
    return host
""",
        plugins=TESTINFRA,
    )
    result.assert_outcomes(passed=3)
    assert "PASSED test_it.py::test_unmarked[local]\n" in said(result)
    assert "PASSED test_it.py::test_marked[client]\n" in said(result)


def test_without_testinfra_a_host_says_what_to_install(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest_run, "find_spec", lambda _: None)
    result = project.test('@mark.topology("pair")\ndef test(host): pass\n@mark.topology("pair")\ndef test_lab(lab): pass')
    result.assert_outcomes(passed=1, errors=2)
    assert "the fixture 'host' is testinfra's, and testinfra is not installed\n  install pytest-testinfra, or use" in said(result)


def test_testinfras_own_hosts_are_as_without_this_plugin(project: Project) -> None:
    text = "seen = []\ndef test(host): seen.append(host)\ndef test_last(): assert len(set(map(id, seen))) == 2"
    result = project.test(text, "--hosts=docker://a,docker://b", plugins=TESTINFRA)
    result.assert_outcomes(passed=3)


@pytest.mark.parametrize("fixture", ["lab", "host"])
def test_a_projects_own_fixture_of_the_name_is_left_alone(project: Project, fixture: str) -> None:
    own = f'@pytest.fixture\ndef {fixture}(): return "mine"\n'
    result = project.test(f'{own}def test({fixture}): assert {fixture} == "mine"')
    result.assert_outcomes(passed=1)
    assert not (project.path / "asked").exists()


def test_a_projects_host_may_be_one_of_the_lab(project: Project) -> None:
    result = project.test(
        """
pytestmark = mark.topology("pair")

@pytest.fixture
def host(lab):
    return lab.name + "/mine"

def test(host):
    assert host.endswith("/mine")
"""
    )
    result.assert_outcomes(passed=1)


def test_a_projects_lab_may_be_made_of_ours(project: Project) -> None:
    result = project.test(
        """
pytestmark = mark.topology("pair")

@pytest.fixture
def lab(lab):
    return "made of " + lab.name

def test(lab):
    assert lab.startswith("made of pair")
"""
    )
    result.assert_outcomes(passed=1)


# When a lab comes up, is reset and goes


def test_a_topology_has_one_lab_which_is_reset_between_tests_and_removed_at_the_end(project: Project) -> None:
    result = project.test(
        """
pytestmark = mark.topology("pair")
def test_a(lab): pass
@mark.topology("star")
def test_b(lab): pass
def test_c(lab): pass
def test_without(): pass
def test_d(lab, host): pass
"""
    )
    result.assert_outcomes(passed=6)
    once = ["remove abandoned", "up pair", "up star"]
    # test_d[client] and test_d[server]
    assert project.asked == [*once, "reset pair", "reset pair", "reset pair", "down star", "down pair"]


@pytest.mark.parametrize(
    ("reset", "resets", "servers"),
    [("function", 4, 5), ("class", 3, 4), ("module", 1, 2), ("session", 0, 1)],
)
def test_what_is_made_of_a_lab_lives_until_it_is_reset(project: Project, reset: str, resets: int, servers: int) -> None:
    """The fixture's own scope is the whole run; the marker's reset= ends it sooner."""
    project.conftest(
        """
import pytest
@pytest.fixture(scope="session")
def server(lab):
    with open("servers", "a") as file:
        file.write("started\\n")
        yield
        file.write("stopped\\n")
"""
    )
    text = f"""
pytestmark = mark.topology("pair", reset="{reset}")
class TestA:
    def test_a(self, server): pass
    def test_b(self, server, lab): pass
def test_c(lab, server): pass
"""
    project.write(text, name="test_one")
    project.write(
        f'pytestmark = mark.topology("pair", reset="{reset}")\ndef test_d(server): pass\ndef test_e(lab, server): pass', name="test_two"
    )
    project.run().assert_outcomes(passed=5)
    assert project.asked.count("reset pair") == resets
    assert (project.path / "servers").read_text().split() == ["started", "stopped"] * servers


def test_more_labs_than_may_be_up_make_room_for_each_other(project: Project) -> None:
    project.pytester.makeini("[pytest]\ntestbed_labs_most = 2\n")
    result = project.test(
        """
@mark.topology("pair")
def test_a(lab): pass
@mark.topology("star")
def test_b(lab): pass
@mark.topology("pair")
def test_c(lab): pass
@mark.topology("routed")
def test_d(lab): pass
"""
    )
    result.assert_outcomes(passed=4)
    assert project.asked == ["remove abandoned", "up pair", "up star", "reset pair", "down star", "up routed", "down pair", "down routed"]


@pytest.mark.parametrize("most", ["0", "-1", "many"])
def test_a_wrong_number_of_labs_is_said(project: Project, most: str) -> None:
    result = project.test('@mark.topology("pair")\ndef test(lab): pass', "-o", f"testbed_labs_most={most}")
    result.assert_outcomes(errors=1)
    assert f"testbed_labs_most is '{most}', and it is to be a number from 1" in said(result)


def test_two_topologies_of_one_name_are_two_labs(project: Project) -> None:
    for directory in ("a", "b"):
        (project.path / directory).mkdir()
        (project.path / directory / "net.yaml").write_text(f"networks: {{lan: }}\nhosts: {{{directory}: }}\n")
    result = project.test('@mark.topology("a/net.yaml")\ndef test_a(lab): pass\n@mark.topology("b/net.yaml")\ndef test_b(lab): pass')
    result.assert_outcomes(passed=2)
    assert project.asked[1:3] == ["up net", "up net-2"]


def test_a_long_name_leaves_room_for_the_runs(project: Project) -> None:
    (project.path / f"{'n' * 63}.yaml").write_text("networks: {lan: }\nhosts: {a: }\n")
    project.test(f'@mark.topology("{"n" * 63}.yaml")\ndef test_a(lab): assert len(lab.name) <= 63').assert_outcomes(passed=1)


def test_labs_go_when_the_run_is_interrupted_after_all_that_may_use_them(project: Project) -> None:
    text = """
@pytest.fixture(scope="session")
def server(lab):
    yield
    with open(asked, "a") as file:
        file.write("the server ends\\n")

@mark.topology("pair", reset="session")
def test(server): raise KeyboardInterrupt
"""
    project.write(text, name="test_it")
    result = project.pytester.runpytest_subprocess(*PLUGIN)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert project.asked[-2:] == ["the server ends", "down pair"]


def test_labs_of_killed_runs_are_removed_first_and_that_is_said(project: Project) -> None:
    project.conftest(abandoned=["pair-0ld"])
    result = project.test('@mark.topology("pair")\ndef test(lab): pass\n@mark.topology("star")\ndef test_b(lab): pass')
    assert project.asked[:3] == ["remove abandoned", "up pair", "up star"]
    assert "lab pair-0ld was removed: the process that it belonged to had been killed" in said(result)


def test_what_was_not_as_it_should_be_is_said_at_the_end(project: Project) -> None:
    project.conftest(warnings=["host a was not restored, and was booted"])
    result = project.test('@mark.topology("pair")\ndef test(lab): pass')
    assert re.search(r"^lab pair-\S+: host a was not restored, and was booted$", said(result), re.MULTILINE)


# Broken labs


def test_a_lab_that_does_not_come_up_is_tried_once_and_said_once(project: Project) -> None:
    project.conftest(fails={"up pair": "no subnet is free\nand more"})
    text = """
pytestmark = mark.topology("pair")
def test_a(lab): pass
def test_b(lab): pass
def test_c(host): pass
@mark.topology("star")
def test_other(lab): pass
"""
    result = project.test(text)
    result.assert_outcomes(passed=1, errors=4)
    assert project.asked.count("up pair") == 1
    assert said(result).count("a lab of topology 'pair' did not come up: no subnet is free\nand more") == 1
    assert said(result).count("a lab of topology 'pair' did not come up, as test_it.py::test_a says: no subnet is free\n") >= 3


def test_without_an_engine_every_test_fails_for_the_one_reason_which_is_asked_for_once(project: Project) -> None:
    project.conftest(fails={"remove": "engine: no Docker engine answers at unix:///nowhere"})
    text = '@mark.topology("pair")\ndef test_a(lab): pass\n@mark.topology("star")\ndef test_b(lab): pass\ndef test_c(): pass'
    result = project.test(text)
    result.assert_outcomes(passed=1, errors=2)
    assert project.asked == ["remove abandoned"]
    assert said(result).count("labs need a Docker engine: no Docker engine answers at unix:///nowhere\n  start it") == 1
    assert "labs need a Docker engine, as test_it.py::test_a says: no Docker engine answers" in said(result)


def test_nothing_is_asked_of_an_engine_to_collect(project: Project) -> None:
    project.conftest(fails={"remove": "engine: gone", "begin": "engine: gone"})
    result = project.test(
        '@mark.topology("pair")\ndef test_a(lab): pass\n@mark.topology("pair")\ndef test_b(host): pass', "--collect-only", "-q"
    )
    assert result.ret == 0
    assert said(result).splitlines()[:3] == ["test_it.py::test_a", "test_it.py::test_b[client]", "test_it.py::test_b[server]"]
    assert not (project.path / "asked").exists()


def test_a_module_whose_lab_does_not_come_up_says_why_once(project: Project) -> None:
    """pytest itself keeps the error of a fixture with a scope, and would say all of it for each test."""
    project.conftest(fails={"up pair": "no subnet is free"})
    text = 'pytestmark = mark.topology("pair", reset="module")\ndef test_a(lab): pass\ndef test_b(lab): pass'
    result = project.test(text)
    result.assert_outcomes(errors=2)
    assert "did not come up, as test_it.py::test_a says" in said(result)


def test_a_lab_that_a_test_broke_is_made_anew_for_the_next(project: Project) -> None:
    project.conftest(fails={"reset pair-": "host server is gone"})
    result = project.test('pytestmark = mark.topology("pair")\ndef test_a(lab): pass\ndef test_b(lab): assert "-2-" in lab.name')
    result.assert_outcomes(passed=2)
    assert project.asked[1:-1] == ["up pair", "reset pair", "down pair", "up pair-2"]
    assert "could not be reset and was made anew: host server is gone" in said(result)


def test_a_lab_that_can_never_be_reset_is_given_up(project: Project) -> None:
    project.conftest(fails={"reset": "no room"})
    tests = "\n".join(f"def test_{number}(lab): pass" for number in range(8))
    result = project.test(f'pytestmark = mark.topology("pair")\n{tests}')
    result.assert_outcomes(passed=4, errors=4)
    assert "a lab of topology 'pair' could not be reset, 4 times in a row: no room" in said(result)
    assert sum(one.startswith("up ") for one in project.asked) == 4
    assert sum(one.startswith("down ") for one in project.asked) == 4


def test_a_lab_that_cannot_be_removed_is_named_at_the_end(project: Project) -> None:
    project.conftest(fails={"down": "the engine hangs"})
    result = project.test('@mark.topology("pair")\ndef test(lab): pass')
    result.assert_outcomes(passed=1)
    assert re.search(r"lab (\S+) could not be removed: the engine hangs; remove it with: testbed down \1\n", said(result))


# A failure


@pytest.mark.parametrize("phase", ["setup", "call", "teardown"])
def test_a_failure_tells_of_its_lab_on_the_terminal_in_files_and_in_the_junit_file(project: Project, phase: str) -> None:
    result = project.test(
        f"""
pytestmark = mark.topology("pair")

@pytest.fixture
def used(lab):
    assert {phase != "setup"}
    yield
    assert {phase != "teardown"}

def test_bad(used):
    assert {phase != "call"}

def test_good(lab): pass
""",
        "--junitxml=junit.xml",
        "--testbed-evidence=told",
    )
    assert project.asked.count("gather pair") == 1
    directory = project.path / "told" / "test_it.py-test_bad"
    assert (directory / "sockets.txt").exists()
    assert re.search(rf"-+ testbed: lab pair-\S+ -+\nlistens\nall of it: {directory}\n", said(result))
    properties = project.junit()
    assert properties["test_good"] == []
    assert properties["test_bad"] == [
        ("testbed-evidence", str(directory)),
        ("testbed-evidence/server/sockets.txt", "LISTEN 0.0.0.0:8001"),
        ("testbed-evidence/lan.pcap", "3 packets"),
    ]


def test_what_has_no_lab_or_is_expected_to_fail_tells_nothing(project: Project) -> None:
    project.test(
        """
@mark.topology("pair")
def test_good(lab): pass
@mark.topology("pair")
def test_without(): assert False
def test_unmarked(): assert False
@mark.topology("pair")
@mark.xfail
def test_expected(lab): assert False
"""
    ).assert_outcomes(passed=1, failed=2, xfailed=1)
    assert "gather pair" not in project.asked


def test_a_lab_asked_for_by_name_tells_too(project: Project) -> None:
    project.test('@mark.topology("pair")\ndef test(request):\n    request.getfixturevalue("lab")\n    assert False')
    assert "gather pair" in project.asked


def test_without_a_place_named_the_files_are_in_pytests_directory(project: Project) -> None:
    result = project.test('@mark.topology("pair")\ndef test(lab): assert False', f"--basetemp={project.path / 'temporary'}")
    assert f"all of it: {project.path / 'temporary' / 'testbed-evidence' / 'test_it.py-test'}\n" in said(result)


def test_a_lab_that_tells_nothing_is_said_to(project: Project) -> None:
    project.conftest(fails={"gather": "the disk is full"})
    result = project.test('@mark.topology("pair")\ndef test(lab): assert False')
    result.assert_outcomes(failed=1)
    assert "the lab tells nothing: the disk is full" in said(result)


def test_names_of_directories_are_fit_for_files_and_never_used_twice(tmp_path: Path) -> None:
    first = pytest_report.directory_for(tmp_path, "tests/test_a.py::TestB::test_c[a/b c]")
    assert first == tmp_path / "tests-test_a.py-TestB-test_c[a-b-c]"
    first.mkdir()
    assert pytest_report.directory_for(tmp_path, "tests/test_a.py::TestB::test_c[a/b c]").name == f"{first.name}-2"
    assert len(pytest_report.directory_for(tmp_path, "x" * 500).name) < 200


# Keeping labs


def test_keep_stops_at_the_first_failure_and_says_how_to_get_in(project: Project) -> None:
    result = project.test(
        """
pytestmark = mark.topology("pair")
def test_unrelated(): assert False
def test_good(lab): pass
def test_bad(lab): assert False
def test_not_reached(lab): assert False
""",
        "--testbed-keep",
    )
    result.assert_outcomes(passed=1, failed=2)
    assert "down pair" not in project.asked
    assert (project.path / "asked").read_text().startswith("begin keep=True")
    name = re.search(r"stopping|--testbed-keep: lab (pair-\S+) is left as test_it.py::test_bad left it", said(result))
    assert name is not None
    for line in (f"lab {name[1]} is up, with hosts client, server", f"  testbed shell {name[1]}/client", f"  testbed down {name[1]}"):
        assert f"{line}\n" in said(result)


def test_keep_without_a_failure_keeps_all(project: Project) -> None:
    result = project.test('@mark.topology("pair")\ndef test(lab): pass\n@mark.topology("star")\ndef test_b(lab): pass', "--testbed-keep")
    assert project.asked[-2:] == ["close pair", "close star"]
    assert len(re.findall(r"^  testbed down (\S+)$", said(result), re.MULTILINE)) == 2


# pytest-xdist


def test_each_worker_has_labs_of_its_own(project: Project) -> None:
    tests = "\n".join(
        f"def test_{number}(lab): time.sleep(0.02); assert lab.name.endswith(os.environ['PYTEST_XDIST_WORKER'])" for number in range(20)
    )
    project.test(f'import os, time\npytestmark = mark.topology("pair")\n{tests}', plugins=XDIST).assert_outcomes(passed=20)
    assert {one for one in project.asked if one.startswith("down")} == {"down pair-gw0", "down pair-gw1"}


def test_what_a_worker_has_to_say_is_said(project: Project) -> None:
    text = 'pytestmark = mark.topology("pair")\ndef test_bad(lab): assert False'
    result = project.test(text, "--testbed-keep", "--testbed-evidence=told", "--junitxml=junit.xml", plugins=XDIST)
    directory = project.path / "told" / "test_it.py-test_bad"
    assert f"all of it: {directory}\n" in said(result)
    assert project.junit()["test_bad"][0] == ("testbed-evidence", str(directory))
    assert re.search(r"^  testbed down pair-[0-9a-f]{6}-gw\d$", said(result), re.MULTILINE)


def test_the_labs_of_a_worker_that_crashed_are_removed_at_the_end(project: Project) -> None:
    project.conftest(abandoned=["pair-of-the-crashed"])
    text = "import os\ndef test_crash():\n    os._exit(1)\ndef test_other(): pass"
    assert "lab pair-of-the-crashed was removed: the process" in said(project.test(text, plugins=XDIST))
    assert "remove abandoned" in (project.path / "asked").read_text()


def test_a_worker_that_crashed_needs_no_engine(project: Project) -> None:
    project.conftest(fails={"remove": "engine: none"})
    result = project.test("import os\ndef test_crash():\n    os._exit(1)\ndef test_other(): pass", plugins=XDIST)
    result.assert_outcomes(passed=1, failed=1)
    assert "none" not in said(result)


# What it costs, and how it is found


def test_a_project_that_does_not_use_it_loads_nothing_of_it(project: Project) -> None:
    project.pytester.makeconftest("")
    text = """
import sys
def test_it():
    heavy = {"pydantic", "docker", "yaml", "rich", "click", "requests"}
    assert [name for name in sys.modules if name.startswith("testbed.")] == ["testbed.pytest_plugin"]
    assert not heavy & set(sys.modules)
"""
    project.pytester.makepyfile(test_it=text)
    result = project.pytester.runpytest_subprocess(*PLUGIN)
    result.assert_outcomes(passed=1)


def test_pytest_finds_the_plugin_and_its_marker(project: Project) -> None:
    described = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert described["entry-points"]["pytest11"]["testbed"] == "testbed.pytest_plugin"
    project.write('@mark.topology("pair")\ndef test(lab, host): pass', name="test_it")
    project.pytester.runpytest_subprocess(*PLUGIN, "--strict-markers", "-W", "error").assert_outcomes(passed=2)
    assert "@pytest.mark.topology(topology, *, reset='function', hosts=None)" in said(project.run("--markers"))
    assert re.search(r"^lab .*\n +The lab of the test's topology", said(project.run("--fixtures")), re.MULTILINE)
