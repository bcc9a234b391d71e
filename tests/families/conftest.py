"""The gallery of the families, shared by all test processes."""

import pytest

from .gallery import Gallery


@pytest.fixture(scope="session")
def gallery(workshop) -> Gallery:
    return Gallery(workshop.root / "families")
