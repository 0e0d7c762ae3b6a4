"""`make interop`: foreign software against tonfs. One module a group, each with its `JUDGES`."""
