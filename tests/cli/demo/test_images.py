from pathlib import Path

from relay.cli.demo import images


def test_the_images_are_real_distinct_and_named_after_patients() -> None:
    files = images.images()
    assert len(files) >= 20
    assert len({file.sop_instance for file in files}) == len(files)
    assert all(images.study_of(file) for file in files)
    canaries = images.canaries_in(files)
    assert b"Doe^Archibald" in canaries
    assert min(map(len, canaries)) >= images.SHORTEST_CANARY


def test_data_sets_are_compared_not_files(tmp_path: Path) -> None:
    file = images.images()[0]
    whole = file.path.read_bytes()
    # Another meta, the same data set: what an archive makes of an object.
    (tmp_path / "copy").write_bytes(b"\1" * 128 + whole[128:])
    (tmp_path / "index.dat").write_bytes(b"not DICOM")
    assert images.digests(tmp_path) == {file.sop_instance: images.digest(file)}
