from relay.router.refusals import MAXIMUM_REFUSALS, Refusals


def test_the_newest_come_first_and_the_oldest_go() -> None:
    refusals = Refusals()
    for number in range(MAXIMUM_REFUSALS + 1):
        refusals.note("WS", "PACS", str(number))
    kept = [refusal.why for refusal in refusals]
    assert kept == [str(number) for number in range(MAXIMUM_REFUSALS, 0, -1)]
    assert next(iter(refusals)).to_json().keys() == {"time", "calling", "called", "why"}


def test_what_has_succeeded_since_is_forgotten() -> None:
    refusals = Refusals()
    for called in ("PACS", "OTHER", "PACS"):
        refusals.note("WS", called, "no")
    refusals.forget("CT", "PACS")
    assert len(list(refusals)) == 3
    refusals.forget("WS", "PACS")
    assert [refusal.called for refusal in refusals] == ["OTHER"]
