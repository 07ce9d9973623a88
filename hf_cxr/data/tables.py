"""`load_table` where scripts for earlier versions import it from; new code imports it from `hf_cxr.data`."""

from hf_cxr.data import load_table

__all__ = ["load_table"]
