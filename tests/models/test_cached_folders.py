"""A cached folder is made once, whole, where the user's cache is."""

import pytest

from r2a_utils.models.cached_folders import cached_folder


def test_a_folder_is_made_once_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []

    def make(folder):
        made.append(folder)
        (folder / "weights").write_text("1")

    first, second = (cached_folder("kind", "name", make) for _ in range(2))
    assert first == second == tmp_path / "r2a" / "kind" / "name"
    assert (first / "weights").read_text() == "1"
    assert len(made) == 1 and not made[0].exists()


def test_a_folder_that_is_not_brought_to_its_end_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def make(folder):
        (folder / "weights").write_text("half")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        cached_folder("kind", "name", make)
    assert list((tmp_path / "r2a" / "kind").iterdir()) == []
