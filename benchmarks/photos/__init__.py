"""A benchmark world of real photographs: 64-pixel scenes of CIFAR-10, and a tiny CLIP trained on them."""
