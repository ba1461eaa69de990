"""Shared by all tests: few threads, no GPU memory grab, and where the real data lies."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest  # noqa: E402

import bert_theseus  # noqa: E402,F401  (sets the switches before any test imports TensorFlow)

REAL_DATA = Path(os.environ.get("BERT_THESEUS_DATA", Path(__file__).parents[1] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real Chinese data; tests that need it skip where it is absent."""
    if not (REAL_DATA / "tnews").is_dir():
        pytest.skip(f"no real data at {REAL_DATA}; set BERT_THESEUS_DATA to a CLUE folder")
    return REAL_DATA


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Every test runs in a folder of its own, so that what it writes harms nothing."""
    monkeypatch.chdir(tmp_path)
