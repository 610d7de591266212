"""Draws the bigger world's pictures into three saved datasets; __main__.py calls it.

python benchmarks/bigger/draw.py --size 128 --pairs 40000 --clean 10000 --output_dir outputs/bigger/pictures
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hf_ta_cleaner import sandbox
from hf_ta_cleaner.data.loading import SANDBOX_LABELLED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, required=True, help="side of a picture in pixels")
    parser.add_argument("--pairs", type=int, required=True, help="pairs for the attacker")
    parser.add_argument("--clean", type=int, required=True, help="pairs for the defender")
    parser.add_argument("--labelled", type=int, default=SANDBOX_LABELLED, help="labelled pictures for the proof")
    parser.add_argument("--output_dir", type=Path, required=True, help="where poison/, clean/ and labelled/ go")
    args = parser.parse_args()
    sandbox.pairs("poison", args.pairs, size=args.size).save_to_disk(args.output_dir / "poison")
    sandbox.pairs("clean", args.clean, size=args.size).save_to_disk(args.output_dir / "clean")
    sandbox.labelled(args.labelled, size=args.size).save_to_disk(args.output_dir / "labelled")
    (args.output_dir / "done").write_text("")


if __name__ == "__main__":
    main()
