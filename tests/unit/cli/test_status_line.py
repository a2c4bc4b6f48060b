import io

from cranecli.front.status_line import StatusLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_off_a_terminal_one_line_is_written_once() -> None:
    stream = io.StringIO()
    status = StatusLine("crun", stream, patience_s=0)
    status.show("waiting")
    status.show("still waiting")
    status.clear()
    assert stream.getvalue() == "crun: waiting\n"
    assert status.due_s() is None


def test_on_a_terminal_the_line_changes_and_goes() -> None:
    stream = Terminal()
    status = StatusLine("crun", stream, patience_s=0)
    status.show("one")
    status.show("two")
    status.say("done")
    assert stream.getvalue() == "\r\x1b[Kcrun: one\r\x1b[Kcrun: two\r\x1b[Kcrun: done\n"


def test_what_is_soon_over_is_not_worth_a_line() -> None:
    stream = io.StringIO()
    status = StatusLine("crun", stream, patience_s=3600)
    status.show("waiting")
    due_s = status.due_s()
    assert due_s is not None
    assert due_s > 3000
    status.clear()
    assert (stream.getvalue(), status.was_shown) == ("", False)


def test_text_from_elsewhere_cannot_steer_the_terminal() -> None:
    stream = io.StringIO()
    StatusLine("crun", stream).say("a\x1b[2Jb\nc")
    assert stream.getvalue() == "crun: a [2Jb c\n"
