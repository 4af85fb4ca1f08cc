"""The check that every plugin's own test calls."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from coordcore.testing.isolation import assert_stands_alone


def package(folder: Path, source: str) -> ModuleType:
    folder.mkdir()
    (folder / "inner.py").write_text(source)
    made = ModuleType("coordcore_mine")
    made.__file__ = str(folder / "__init__.py")
    return made


def test_the_core_and_itself_may_be_imported(tmp_path: Path) -> None:
    source = "import coordcore.coords\nfrom coordcore_mine import a\nfrom . import coordcore_b\n"
    assert_stands_alone(package(tmp_path / "mine", source))


@pytest.mark.parametrize("line", ["import coordcore_other.a", "def f():\n    from coordcore_other import b"])
def test_another_plugin_may_not(tmp_path: Path, line: str) -> None:
    with pytest.raises(AssertionError, match="coordcore_mine imports coordcore_other"):
        assert_stands_alone(package(tmp_path / "mine", line))


def test_one_that_it_says_it_builds_on_may(tmp_path: Path) -> None:
    made = package(tmp_path / "mine", "from coordcore_other import a\nimport coordcore_third\n")
    with pytest.raises(AssertionError, match=r"coordcore_mine imports coordcore_third$"):
        assert_stands_alone(made, on=["coordcore_other"])


def test_nor_be_installed_where_isolation_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "site" / "coordcore_other-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: coordcore-other\nVersion: 1\n")
    monkeypatch.syspath_prepend(info.parent)
    monkeypatch.setenv("COORDCORE_ISOLATED", "1")
    with pytest.raises(AssertionError, match="coordcore_other"):
        assert_stands_alone(package(tmp_path / "mine", ""))
