"""What was run on a host, for whoever asks afterwards."""

from __future__ import annotations

from testbed.transcript import MOST_COMMANDS, MOST_OUTPUT, Transcript


def test_a_transcript_is_for_people() -> None:
    transcript = Transcript()
    transcript.begin(["true"]).ending = "exit code 0"
    entry = transcript.begin(["cat", "/etc/motd"], ["/run/out", ""])
    entry.wrote(1, b"one\ntw")
    entry.wrote(1, b"o\xff\n")
    entry.wrote(2, b"oops\n")
    lines = transcript.text().splitlines()
    assert [line.split("  ", 1)[-1] if line.startswith("+") else line for line in lines] == [
        "true",
        "  exit code 0",
        "cat /etc/motd",
        "  runs",
        "  its output goes to /run/out",
        "  output:",
        "  | one",
        "  | two\\xff",
        "  error output:",
        "  | oops",
    ]


def test_only_the_end_of_much_output_is_kept() -> None:
    entry = Transcript().begin(["yes"])
    for number in range(1000):
        entry.wrote(1, b"%07d\n" % number * 100)
    text, before = entry.output(1)
    assert len(text) == MOST_OUTPUT
    assert text.endswith("0000999\n")
    assert before + len(text) == 800 * 1000
    assert sum(len(one) for one in entry._written.values()) <= 2 * MOST_OUTPUT + 800


def test_only_the_last_of_many_commands_are_kept_and_it_says_how_many_were_before() -> None:
    transcript = Transcript()
    for number in range(MOST_COMMANDS + 5):
        transcript.begin(["echo", str(number)])
    assert len(transcript.entries) == MOST_COMMANDS
    assert transcript.text().startswith("(5 commands before these)\n")
    transcript.clear()
    assert transcript.text() == ""
