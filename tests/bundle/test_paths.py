"""Names that a bundle's files may have."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.bundle.paths import check_distinct, check_path
from edgekit.errors import BundlePathError


@pytest.mark.parametrize("name", ["omg.onnx", "graphs/omg.onnx", "a-b_c.1/d", "_x"])
def test_plain_names(name: str) -> None:
    assert check_path(name, "files") == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd", "is absolute"),
        ("C:/x", "is absolute"),
        ("c:x", "is absolute"),
        ("../x", r"leads outside with '\.\.'"),
        ("a/../../x", r"leads outside with '\.\.'"),
        ("..\\x", "has a backslash"),
        ("\\\\server\\share", "has a backslash"),
        ("", "has an empty part"),
        ("a//b", "has an empty part"),
        ("a/", "has an empty part"),
        ("./a", "a leading dot"),
        (".hidden", "a leading dot"),
        ("a b", "a character other than"),
        ("a\0b", "a character other than"),
        ("a\n", "a character other than"),
        ("ä", "a character other than"),
        ("x" * 201, "is longer than 200 characters"),
    ],
)
def test_names_that_are_refused(name: str, reason: str) -> None:
    with pytest.raises(BundlePathError, match=reason):
        check_path(name, "files")


@given(st.text(st.sampled_from("ab./\\:C~\0 ")))
def test_no_accepted_name_leads_outside(name: str) -> None:
    try:
        check_path(name, "files")
    except BundlePathError:
        return
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        assert not path.is_absolute()
        assert not path.drive
        assert ".." not in path.parts


def test_distinct_names() -> None:
    check_distinct(["a", "b/a", "b/c"], "files")
    with pytest.raises(BundlePathError, match="'A' and 'a' are the same file"):
        check_distinct(["a", "A"], "files")
    with pytest.raises(BundlePathError, match="'a' is both a file and a folder"):
        check_distinct(["A/b", "a"], "files")
