"""The services of a device as people choose them: words for each, and how a form says them."""

from collections.abc import Sequence

from relay.pages.forms import Form

# As the Router knows them (GET /v1/devices), with what each one lets others do.
SERVICES = (
    ("echo", "Echo", "Test whether it answers (C-ECHO)"),
    ("store", "Store", "Send images to it (C-STORE)"),
    ("query", "Query", "Search in it (C-FIND)"),
    ("retrieve", "Retrieve", "Fetch from it (C-MOVE, C-GET)"),
    ("worklist", "Worklist", "Ask for its worklist"),
    ("mpps", "MPPS", "Tell it of procedure steps"),
    ("commit", "Storage commitment", "Have it confirm what it keeps"),
)
NAMED = tuple(name for name, _, _ in SERVICES)
PRIVATE = "private:"


def in_words(published: Sequence[str]) -> list[tuple[str, str, str]]:
    """Those of a device, as choices: each with what it lets others do."""
    named = [choice for choice in SERVICES if choice[0] in published]
    uids = [word for word in published if word.startswith(PRIVATE)]
    return named + [
        (word, word.removeprefix(PRIVATE), "A SOP class that has no name here") for word in uids
    ]


def of_form(form: Form) -> list[str]:
    """The services of a form: those ticked, and the SOP classes that were typed."""
    typed = form.text("private").replace(",", " ").split()
    return form.texts("services") + [
        uid if uid.startswith(PRIVATE) else PRIVATE + uid for uid in typed
    ]


def private_of(services: list[str]) -> str:
    """The SOP classes among them that have no name of their own, as a form shows them."""
    return " ".join(word.removeprefix(PRIVATE) for word in services if word.startswith(PRIVATE))
