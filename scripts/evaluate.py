"""`accelerate launch scripts/evaluate.py ...`: the same program as `hf-cxr evaluate ...`."""

import sys

from hf_cxr.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
