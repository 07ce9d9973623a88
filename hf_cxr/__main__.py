"""`python -m hf_cxr`: the same as `hf-cxr`, where the folder of scripts is not on the PATH."""

import sys

from hf_cxr.commands import main

if __name__ == "__main__":
    sys.exit(main())
