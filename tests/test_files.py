"""A file is the old one or the whole new one."""

import pytest

from seqdyn.files import in_one_step


def test_what_could_not_be_written_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "a::b.json"
    with in_one_step(file) as partial:
        partial.write_text("old")
        assert not file.exists() and partial.parent == file.parent
    with pytest.raises(KeyboardInterrupt), in_one_step(file) as partial:
        partial.write_text("half of the n")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == [file.name] and file.read_text() == "old"
    with in_one_step(file) as partial:
        partial.write_text("new")
    assert file.read_text() == "new"
