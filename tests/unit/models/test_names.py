"""Every architecture has its own name, and a card has it."""

from hf_cxr.arguments.components import ARCHITECTURES
from hf_cxr.models.names import NAMES, network_name
from hf_cxr.models.timm_models import TIMM
from hf_cxr.systems import SYSTEMS


def test_every_architecture_has_a_name_of_its_own():
    assert set(ARCHITECTURES) - {TIMM} - set(SYSTEMS) <= set(NAMES) <= set(ARCHITECTURES)
    assert len(set(NAMES.values())) == len(NAMES)
    assert all(name.startswith("swin") == ("swin" in words.lower()) for name, words in NAMES.items())
    assert network_name({"model_type": "a_system"}) == "a_system"
