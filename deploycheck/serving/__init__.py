"""Exports, the server that loads them, and the load that measures it.

The server loads the artifact alone, never the user's model code, and speaks the Open Inference Protocol v2.
"""
