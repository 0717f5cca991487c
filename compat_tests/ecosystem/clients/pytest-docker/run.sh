# The fixtures of pytest-docker: a compose project, the mapped port of a service.
python -m pytest -q -p no:cacheprovider tests/check_web.py
