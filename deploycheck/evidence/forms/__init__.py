"""The forms of the evidence, one file each. The JSON and Markdown reports are files; the terminal's is a table."""
