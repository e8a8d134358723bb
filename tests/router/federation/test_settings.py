from relay.router.federation.settings import FederationSettings, Merging, OnIncomplete


def test_by_default_it_is_on_merges_and_says_what_is_missing() -> None:
    settings = FederationSettings()
    assert settings.ae_title == "FEDERATION"
    assert settings.answers is Merging.MERGED
    assert settings.on_incomplete is OnIncomplete.FAILURE
    assert settings.narrowing
    assert settings.store_to == ""
