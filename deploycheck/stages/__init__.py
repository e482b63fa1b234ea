"""The arithmetic of a spec's stages: examples, preprocessing, training, compression."""
