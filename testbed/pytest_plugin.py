"""The pytest plugin: tests that run in labs. docs/pytest.md tells how it is used.

    @pytest.mark.topology("cross-endian")
    def test_echo(lab):
        ...

It is loaded into every run of pytest where testbed is installed, so what costs something is loaded when the first test wants a lab.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from testbed.pytest_run import Run

MARKER = "topology"
MARKER_HELP = (
    "topology(topology, *, reset='function', hosts=None): the test runs in a lab of this topology: the name of one that comes with "
    "testbed, the path of a file, or a testbed.Topology. The lab is reset before each 'function', 'class', 'module' or 'session'; "
    "the fixture host is each of hosts, by default of all."
)
MOST_LABS = 4

RUN = pytest.StashKey["Run"]()
ENDINGS = pytest.StashKey[list[dict[str, Any]]]()  # what each process has to say at its end
CRASHED = pytest.StashKey[bool]()  # a worker of pytest-xdist ended without a word


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("testbed", "labs of several hosts (testbed)")
    group.addoption(
        "--testbed-keep",
        action="store_true",
        help="stop at the first failure of a test in a lab, leave the labs up, and say how to get in",
    )
    group.addoption(
        "--testbed-evidence",
        metavar="DIR",
        help="where to write what the lab of a failed test tells (by default in pytest's temporary directory)",
    )
    parser.addini("testbed_labs_most", f"how many labs a process has up at a time (default: {MOST_LABS})", default=str(MOST_LABS))
    record_help = "record the networks of each lab, so that there is a pcap when a test fails (default: true)"
    parser.addini("testbed_record", record_help, type="bool", default=True)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER_HELP)
    # After all other plugins: where several have a fixture of the same name, that of the last one counts.
    beside_testinfra = any(hasattr(plugin, "_testinfra_host") for plugin in config.pluginmanager.get_plugins())
    config.pluginmanager.register(_plugin_of_host(beside_testinfra=beside_testinfra), "testbed-host")


# Fixtures. What a fixture of any scope makes of `lab` lives as long as the lab is not reset: pytest sees to that, because `lab` is
# parametrized with the marker (testbed.pytest_marker).


@pytest.fixture(scope="session")
def _testbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The labs of this process."""
    from testbed.pytest_run import Run

    run = request.config.stash[RUN] = Run.begin(request.config, tmp_path_factory.getbasetemp())
    return run


@pytest.fixture(scope="session")
def _testbed_host() -> None:
    """A test that has this uses testbed's `host`, and not one of the project's own."""


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest, _testbed: Run) -> object:
    """The lab of the test's topology, a testbed.Lab, as it is when it has come up."""
    return _testbed.take(getattr(request, "param", None))


@pytest.fixture(scope="session")
def endian() -> object:
    """Whether a program is the same on both byte orders: endian.compare(server="server.c", client="client.c")."""
    from testbed.pytest_endian import Endian

    return Endian()


def _plugin_of_host(*, beside_testinfra: bool) -> ModuleType:
    """The plugin that has the fixture `host`. It is testinfra's host always; without the marker, of the hosts that testinfra knows of."""
    if beside_testinfra:

        @pytest.fixture(scope="module")
        def host(request: pytest.FixtureRequest, _testbed_host: None, _testinfra_host: object) -> object:
            """testinfra's host. With a topology marker, each host of the topology; its `testbed` is the testbed.Host."""
            return _host(request) if hasattr(request, "param") else _testinfra_host

    else:

        @pytest.fixture(scope="module")
        def host(request: pytest.FixtureRequest, _testbed_host: None) -> object:
            """testinfra's host, each host of the test's topology; its `testbed` is the testbed.Host."""
            return _host(request)

    plugin = ModuleType("testbed.pytest_host")
    vars(plugin)["host"] = host
    return plugin


def _host(request: pytest.FixtureRequest) -> object:
    request.getfixturevalue("lab")
    _, name = request.param
    run: Run = request.getfixturevalue("_testbed")
    return run.host(name)


# Hooks


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker(MARKER) is not None:
        from testbed import pytest_marker

        pytest_marker.parametrize(metafunc)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    names: Sequence[str] = getattr(item, "fixturenames", ())
    fixture = "lab" if "_testbed" in names else "host" if "_testbed_host" in names and "_testinfra_host" not in names else ""
    if fixture and item.get_closest_marker(MARKER) is None:
        from testbed.pytest_run import without_marker

        pytest.fail(without_marker(fixture), pytrace=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    run = item.config.stash.get(RUN, None)
    if run is not None and report.failed:
        run.complete(report, item, call.excinfo.value if call.excinfo else None)
    return report


@pytest.hookimpl(trylast=True)  # after fixtures of the session are finished, which may use a lab
def pytest_sessionfinish(session: pytest.Session) -> None:
    run = session.config.stash.get(RUN, None)
    if session.config.stash.get(CRASHED, False):
        from testbed.pytest_run import after_a_crash

        session.config.stash.setdefault(ENDINGS, []).append(after_a_crash())
    if run is None:
        return
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["testbed"] = run.end()
    else:
        session.config.stash.setdefault(ENDINGS, []).append(run.end())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist has ended."""
    output = getattr(node, "workeroutput", None)
    if output is None:
        node.config.stash[CRASHED] = True
    elif ending := output.get("testbed"):
        node.config.stash.setdefault(ENDINGS, []).append(ending)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if endings := config.stash.get(ENDINGS, None):
        from testbed.pytest_report import lines_of

        if lines := [line for ending in endings for line in lines_of(ending)]:
            terminalreporter.section("testbed")
            for line in lines:
                terminalreporter.line(line)
