"""In which bridge an interface belongs, and what follows when it is not there."""

from __future__ import annotations

from etherws.kernel.membership import RELOADS, RELOADS_WITHIN, SETTLE, Membership, Seen, State, Verdict

ALONE = Seen(up=True, master=0, master_name="", bridge_exists=True, namesake=0)
DOWN = ALONE._replace(up=False)
GONE = ALONE._replace(bridge_exists=False)
BACK = GONE._replace(namesake=9)
IN = Seen(up=True, master=5, master_name="br0", bridge_exists=True, namesake=0)


def member(wanted: str | None = "br0") -> Membership:
    """An interface in br0, whose index is 5."""
    made = Membership(wanted)
    assert made.look(IN, 0.0) is Verdict.NOTHING
    assert (made.state, made.bridge, made.name, made.due) == (State.IN, 5, "br0", None)
    return made


def both() -> list[Membership]:
    """One for which the user has named the bridge, and one that was put there by hand."""
    return [member("br0"), member(None)]


def test_who_belongs_nowhere_is_left_alone() -> None:
    alone = Membership(None)
    assert [alone.look(seen, 1.0) for seen in (ALONE, DOWN, GONE)] == [Verdict.NOTHING] * 3
    assert (alone.state, alone.due) == (State.ALONE, None)
    # Somebody puts it somewhere: no news.
    assert alone.look(IN, 2.0) is Verdict.NOTHING


def test_a_bridge_that_is_gone_is_waited_for() -> None:
    for one in both():
        assert one.look(GONE, 1.0) is Verdict.DELETED
        assert one.look(GONE, 2.0) is Verdict.NOTHING
        assert one.look(BACK, 3.0) is Verdict.JOIN
        one.joined(9)
        assert (one.state, one.bridge) == (State.IN, 9)
        assert one.look(IN._replace(master=9), 3.1) is Verdict.NOTHING


def test_a_port_that_is_taken_out_just_before_the_bridge_goes_belongs_to_it() -> None:
    for one in both():
        assert one.look(ALONE, 1.0) is Verdict.NOTHING
        assert one.due == 1.0 + SETTLE
        assert one.look(ALONE, 1.1) is Verdict.NOTHING
        assert one.look(GONE, 1.2) is Verdict.DELETED


def test_others_may_put_it_into_the_new_bridge() -> None:
    for one in both():
        one.look(GONE, 1.0)
        assert one.look(IN._replace(master=9), 1.1) is Verdict.NOTHING
        assert (one.state, one.bridge) == (State.IN, 9)


def test_who_is_taken_out_stays_out() -> None:
    for one in both():
        one.look(ALONE, 1.0)
        assert one.look(ALONE, 1.0 + SETTLE) is Verdict.TAKEN_OUT
        assert one.look(ALONE, 9.0) is Verdict.NOTHING
        assert (one.state, one.due) == (State.OUT, None)
        # Put back.
        assert one.look(IN, 10.0) is Verdict.NOTHING
        assert one.state is State.IN


def test_who_was_taken_out_joins_a_new_bridge_if_the_user_has_named_it() -> None:
    verdicts = []
    for one in both():
        one.look(ALONE, 1.0)
        one.look(ALONE, 1.0 + SETTLE)
        verdicts.append((one.look(GONE, 3.0), one.look(BACK, 4.0)))
    assert verdicts == [(Verdict.DELETED, Verdict.JOIN), (Verdict.NOTHING, Verdict.NOTHING)]


def test_a_reload_of_ifupdown2_is_undone_for_a_named_bridge() -> None:
    verdicts = []
    for one in both():
        one.look(ALONE, 1.0)
        one.look(DOWN, 1.001)
        verdicts.append(one.look(DOWN, 1.0 + SETTLE))
    assert verdicts == [Verdict.RELOADED, Verdict.TAKEN_OUT]


def test_who_takes_it_out_again_and_again_wins() -> None:
    one, verdicts = member(), []
    for at in range(1, RELOADS + 2):
        one.look(DOWN, float(at))
        verdicts.append(one.look(DOWN, at + SETTLE))
        one.look(IN, at + SETTLE)
    assert verdicts == [Verdict.RELOADED] * RELOADS + [Verdict.RELOADED_AGAIN]
    # Some time later it is a reload again.
    one.look(DOWN, RELOADS_WITHIN + 5)
    assert one.look(DOWN, RELOADS_WITHIN + 5 + SETTLE) is Verdict.RELOADED


def test_an_interface_that_was_down_before_is_no_sign_of_a_reload() -> None:
    one = member()
    one.look(IN._replace(up=False), 1.0)
    one.look(IN._replace(up=False), 1.5)
    one.look(DOWN, 3.0)
    assert one.stays_down
    assert one.look(DOWN, 3.0 + SETTLE) is Verdict.TAKEN_OUT
    # ifupdown sets a port down just before it takes it out.
    one = member()
    one.look(IN._replace(up=False), 1.0)
    one.look(DOWN, 1.001)
    assert not one.stays_down
    # Up again in between.
    one = member()
    for up in (False, True):
        one.look(IN._replace(up=up), 1.0)
    one.look(GONE, 5.0)
    assert not one.stays_down


def test_who_is_moved_stays_there_and_belongs_there() -> None:
    other = IN._replace(master=7, master_name="br1")
    for one in both():
        assert one.look(other, 1.0) is Verdict.MOVED
        assert one.look(other, 2.0) is Verdict.NOTHING
        assert one.look(GONE, 3.0) is Verdict.DELETED
        assert (one.name, one.moved) == ("br1", one.wanted is not None)
        one.joined(9)
        # A reload there is none of ours.
        one.look(DOWN, 4.0)
        assert one.look(DOWN, 4.0 + SETTLE) is Verdict.TAKEN_OUT
        # Moved back.
        assert one.look(IN, 5.0) is Verdict.MOVED
        assert (one.name, one.moved) == ("br0", False)


def test_a_bridge_with_a_new_name_is_the_same() -> None:
    renamed, names = IN._replace(master_name="br9"), []
    for one in both():
        assert one.look(renamed, 1.0) is Verdict.NOTHING
        assert not one.moved
        names.append(one.name)
    # If it is deleted, the one is waited for whose name the user gave; else the one that it was.
    assert names == ["br0", "br9"]


def test_what_another_process_has_known_goes_on_counting() -> None:
    for wanted, moved in (("br0", False), (None, False), ("br1", True)):
        one = Membership(wanted)
        one.was_in((5, "br0"))
        assert (one.state, one.bridge, one.name, one.moved) == (State.IN, 5, "br0", moved)
        assert one.look(GONE, 1.0) is Verdict.DELETED
    # Nothing is known, or known better.
    unknown, known = Membership("br0"), member("br0")
    unknown.was_in(None)
    known.was_in((9, "br9"))
    assert (unknown.state, known.bridge) == (State.ALONE, 5)
