"""Every vector, judged by an implementation that was written from PROTOCOL.md alone (§20)."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("second_implementation.py")
PATHS = sorted(SCRIPT.with_name("vectors").glob("*.txt"))
ONE = SCRIPT.with_name("vectors") / "aes-gcm-16.txt"


def load_second():
    """The script as a module, found by its place: it is no part of any package."""
    spec = importlib.util.spec_from_file_location("second_implementation", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


second = load_second()


def outputs(vector):
    """Each value that the vector states as an outcome: its key, and which of that key's it is."""
    kind = second.KINDS[vector.text("kind")]
    inputs = {"name", "source", "kind", *kind.inputs.split()}
    return [
        (key, index)
        for key, values in vector.values.items()
        if key not in inputs
        for index in range(len(values))
    ]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_agrees_with_vector(path):
    """On every value that the vector states, and on nothing that it does not."""
    _, disagreements = second.judge(second.Vector.read(path))
    assert disagreements == []


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_any_other_outcome_is_a_disagreement(path):
    """What the vector states is compared: each value, changed or taken away, is noticed."""
    stated = second.Vector.read(path)
    for key, index in outputs(stated):
        changed = second.Vector.read(path)
        changed.values[key][index] += "0"
        assert second.judge(changed)[1], f"{key} changed"
        removed = second.Vector.read(path)
        del removed.values[key]
        if key != "outcome":
            assert second.judge(removed)[1], f"{key} removed"


def test_kinds_and_vectors_cover_each_other():
    assert {second.Vector.read(path).text("kind") for path in PATHS} == set(second.KINDS)


def test_every_kind_with_a_refusal_has_a_vector_of_it():
    """§20: failures are vectors too, of every kind but those that refuse nothing."""
    read = [second.Vector.read(path) for path in PATHS]
    outcomes = {(vector.text("kind"), vector.text("outcome")) for vector in read}
    assert {kind for kind, outcome in outcomes if outcome == "success"} == set(second.KINDS)
    refusing = set(second.KINDS) - {"hkdf", "aes-gcm", "identity"}
    assert {kind for kind, outcome in outcomes if outcome == "refused"} == refusing
    assert ("flow", "unfinished") in outcomes


def run(directory):
    return subprocess.run(
        [sys.executable, SCRIPT, directory], capture_output=True, text=True, timeout=60
    )


def test_script_tells_of_each_vector(tmp_path):
    shutil.copy(ONE, tmp_path)
    done = run(tmp_path)
    assert done.returncode == 0
    assert done.stdout == f"agrees  {ONE.stem}: success\n1 vectors, 0 disagreements\n"


def test_script_fails_on_a_disagreement(tmp_path):
    text = ONE.read_text(encoding="utf-8").replace("outcome: success", "outcome: refused")
    (tmp_path / "spoiled.txt").write_text(text, encoding="utf-8")
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("DISAGREES  spoiled: success\n")


def test_script_fails_on_a_kind_that_it_does_not_know(tmp_path):
    text = ONE.read_text(encoding="utf-8").replace("kind: aes-gcm", "kind: other")
    (tmp_path / "other.txt").write_text(text, encoding="utf-8")
    done = run(tmp_path)
    assert done.returncode == 1
    assert "unknown kind other" in done.stdout


def test_script_fails_without_vectors(tmp_path):
    assert run(tmp_path).returncode == 1
