"""Files that claim to be huge take no memory: measured in a process of their own."""

import subprocess
import sys

from test_dicom import J2K, REFUSED
from test_images import png_of_size, tiff_of_size


def test_bombs_take_no_memory(tmp_path):
    """Each in one process of its own, which has no memory for what the headers claim."""
    bombs = [whole for kind, (whole, _) in REFUSED.items() if kind.startswith("bomb")]
    bombs += [png_of_size(50_000, 50_000), tiff_of_size(50_000, 50_000)]
    for number, whole in enumerate(bombs):
        (tmp_path / f"{number}.dat").write_bytes(whole)
    (tmp_path / "sound.dcm").write_bytes(J2K)
    code = (
        "import resource, sys; from hf_cxr.data.images.grey import ImageError, read_grey; read_grey(sys.argv[1])\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "for path in sys.argv[2:]:\n"
        "    try: read_grey(path)\n"
        "    except ImageError as error: print('refused')\n"
        "print((peak() - before) // 1024)\n"
    )
    paths = [tmp_path / "sound.dcm", *(tmp_path / f"{number}.dat" for number in range(len(bombs)))]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    *refused, grown = done.stdout.split()
    assert refused == ["refused"] * 5
    assert int(grown) < 50  # MiB, or KiB on a Mac; one byte a pixel would be 2,400
