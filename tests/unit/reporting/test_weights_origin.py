"""What pages say of weights of another program: a caution where test images were seen, or where that is unknown."""

import pytest
from tiny import PROTOCOL

from hf_cxr.reporting.protocol import data_cautions, split_facts
from hf_cxr.weights_origin import check_origin

ORIGIN = {"kind": "converted", "source": "the lab", "licence": "CC BY 4.0", "saw_test_images": "no", "note": None}


def test_a_page_cautions_unless_the_weights_never_saw_test_images():
    plain = data_cautions(PROTOCOL)
    cautions = {}
    for answer in ("yes", "no", "unknown"):
        protocol = PROTOCOL | {"weights_origin": ORIGIN | {"saw_test_images": answer}}
        cautions[answer] = [words for words in data_cautions(protocol) if words not in plain]
        facts = dict(split_facts(protocol))["origin of the initial weights"]
        assert all(words in facts for words in ("the lab", "CC BY 4.0", f"training: {answer}"))
    assert cautions["no"] == []
    assert len(cautions["yes"]) == len(cautions["unknown"]) == 1
    assert cautions["yes"] != cautions["unknown"]
    assert "origin of the initial weights" not in dict(split_facts(PROTOCOL))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "must be a mapping"),
        (ORIGIN | {"saw_test_images": "perhaps"}, "must be one of yes, no, unknown"),
        (ORIGIN | {"kind": None}, "must be one of converted, pretrained"),
        (ORIGIN | {"source": ["a", "list"]}, "must be text"),
    ],
)
def test_a_damaged_origin_is_refused(value, message):
    check_origin(ORIGIN)
    with pytest.raises(ValueError, match=message):
        check_origin(value)
