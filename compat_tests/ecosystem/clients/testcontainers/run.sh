# Wait strategies, networks, exec, builds and compose by Testcontainers for Python, without its reaper.
export TESTCONTAINERS_RYUK_DISABLED=true
python -W ignore containers.py
