"""What the benchmarks share: resumable steps, the worlds they run in, tables, and blocks of the README."""

from pathlib import Path


ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
