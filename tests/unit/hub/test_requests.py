"""The block around requests: its time limit, and what is hidden in log lines, also where one block is in another."""

import logging

import pytest
from huggingface_hub import HfApi, get_session

from hf_cxr.hub.requests import TIMEOUT, HubError, explained


def test_a_block_within_a_block_leaves_the_outer_one_guarded(caplog):
    api, before = HfApi(token=False), get_session().timeout
    log = logging.getLogger("huggingface_hub.test")
    with caplog.at_level(logging.WARNING):
        with explained("push", api):
            with explained("read", api):
                log.warning("PUT https://cdn.example/a?signature=1 failed")
            assert get_session().timeout.read == TIMEOUT
            log.warning("PUT https://cdn.example/b?signature=2 failed")
        log.warning("https://cdn.example/c?after=3")
    assert "cdn.example/a failed" in caplog.text
    assert "cdn.example/b failed" in caplog.text
    assert "signature" not in caplog.text
    assert "after=3" in caplog.text
    assert get_session().timeout == before


def test_the_inner_reason_is_the_one_that_is_reported():
    api = HfApi(token=False)
    with pytest.raises(HubError, match="could not read: disk full"), explained("push", api), explained("read", api):
        raise OSError("disk full")
