"""The inputs that fuzzing has found worth keeping: fuzz/kept/NAME.hex, an input a line, the short ones first.

    python3 fuzz/kept.py unpack NAME DIRECTORY   into files, as libFuzzer reads them
    python3 fuzz/kept.py pack NAME DIRECTORY     from files, in place of what was kept
"""

import hashlib
import pathlib
import sys

verb, name, directory = sys.argv[1:]
kept = pathlib.Path(__file__).parent / "kept" / f"{name}.hex"
files = pathlib.Path(directory)
if verb == "unpack":
    files.mkdir(parents=True, exist_ok=True)
    for line in kept.read_text().split() if kept.exists() else []:
        data = bytes.fromhex(line)
        (files / hashlib.sha1(data).hexdigest()).write_bytes(data)  # the name that libFuzzer would give it
elif verb == "pack":
    inputs = {path.read_bytes() for path in files.iterdir()} - {b""}
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("".join(f"{data.hex()}\n" for data in sorted(inputs, key=lambda data: (len(data), data))))
else:
    sys.exit(__doc__)
