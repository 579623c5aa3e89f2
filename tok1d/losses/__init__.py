"""What training minimises: pixels, perceptual, adversarial, alignment with frozen features."""
