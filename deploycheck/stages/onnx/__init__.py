"""An ONNX file as a model of JAX: its tensors are weights with names, and its operators functions of arrays.

``file.py`` reads and checks the file, ``graph.py`` is what is kept of it, ``evaluate.py`` evaluates it, and ``rules/``
has what each operator gives, one file for each family. Importing this package imports neither JAX nor onnx.
"""
