"""Settings shared by all tests: no network, no screen, few threads (several test processes share the cores).

Tests marked `long` (fuzz with many examples, the whole corpus of folder layouts, faults for real) run only
with
`--long`, that is by `make test-long`.
"""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also run what is marked long (make test-long)")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        for item in items:
            if "long" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="only with --long"))


def pytest_configure(config):
    config.addinivalue_line("markers", "long: runs by `make test-long` only")
    config.addinivalue_line("markers", "slow: takes more than ten seconds")
    config.addinivalue_line("filterwarnings", "ignore:IProgress not found")
