"""`accelerate launch scripts/train.py ...`: the same program as `hf-cxr train ...`."""

import sys

from hf_cxr.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
