"""What a spec's stages do: one file a stage or a method."""
