from tests.cli.conftest import FakeProcess


def test_enrolling_shows_the_contact_last(router: FakeProcess) -> None:
    answer = {"bridge": "https://h", "name": "N", "contact": "relay-contact:abc"}
    router.will("POST", "/v1/enrolment", answer)
    result = router.relay("enroll", "relay-invitation:xyz")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "enrolled at https://h as N"
    assert result.stdout.split()[-1] == "relay-contact:abc"
    assert router.asked == [("POST", "/v1/enrolment", {"invitation": "relay-invitation:xyz"})]
    router.will("POST", "/v1/enrolment", answer | {"already": True})
    result = router.relay("enroll", "relay-invitation:xyz")
    assert result.exit_code == 0
    assert result.stdout.startswith("already enrolled at https://h as N")
