"""`accelerate launch scripts/predict.py ...`: the same program as `hf-cxr predict ...`."""

import sys

from hf_cxr.commands.predict import main

if __name__ == "__main__":
    sys.exit(main())
