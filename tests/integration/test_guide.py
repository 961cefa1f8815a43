"""The guide runs as it stands: commands and Python of a page, one after the other, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doc_pages import GUIDE
from tests.doc_runs import run_page

pytestmark = pytest.mark.parallel


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_the_guide_runs_as_it_stands(page: Path, tmp_path: Path, materials: Path) -> None:
    run_page(page, tmp_path, materials)
