"""What a training batch is made of: augmented pictures and captions, noise, adversarial triggers."""
