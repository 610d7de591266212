"""Dual encoders: loading and saving them, what differs between families, zero-shot heads, LoRA, speed."""
