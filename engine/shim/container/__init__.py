"""The processes of a container: the first one and its execs (``process``, ``execs``), how they become children of the
shim (``launcher``), what is done to them (``controls``), what is stored of them (``record``), and the removal of the
container after its exit (``removal``).
"""
