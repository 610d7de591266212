"""How fast is a cleaning step, and what is it made of? See README.md."""

from pathlib import Path


HERE = Path(__file__).parent
