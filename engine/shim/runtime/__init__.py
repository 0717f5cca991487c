"""The OCI runtime, crun or runc: its command lines (``oci``), its calls (``runner``) with their ``deadlines``, and the
meaning of its errors (``refusals``).
"""
