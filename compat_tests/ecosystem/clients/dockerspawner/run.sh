# The spawner of JupyterHub that makes a container for each user.
python spawn.py
