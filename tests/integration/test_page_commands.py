"""The commands of all other pages run as they stand, one after the other, in a folder of the page's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doc_pages import GUIDE, PAGES, blocks
from tests.doc_runs import run_page

pytestmark = pytest.mark.parallel

OTHERS = [page for page in PAGES if page not in GUIDE and any(block.kind == "bash" for block in blocks(page))]


@pytest.mark.parametrize("page", OTHERS, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run_as_they_stand(page: Path, tmp_path: Path, materials: Path) -> None:
    run_page(page, tmp_path, materials)
