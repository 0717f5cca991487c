"""One user's server, started, polled, stopped and removed by JupyterHub's DockerSpawner."""

import asyncio
import sys
import urllib.request

from dockerspawner import DockerSpawner
from jupyterhub import orm
from jupyterhub.objects import Hub
from jupyterhub.user import User

SERVER = ["sh", "-c", "mkdir /www; echo served >/www/index.html; exec httpd -f -p 8888 -h /www"]


def read(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        return answer.read()


async def main() -> None:
    db = orm.new_session_factory("sqlite:///:memory:")()
    account = orm.User(name="alice")
    record = orm.Spawner(name="", user=account)
    db.add_all([account, record])
    db.commit()
    spawner = DockerSpawner(
        user=User(account, {"base_url": "/"}),
        orm_spawner=record,
        hub=Hub(ip="127.0.0.1", port=8081),
        db=db,
        image="busybox:latest",
        cmd=SERVER,
        remove=True,
        mem_limit="64M",
        cpu_limit=0.5,
        volumes={"spawner-{username}": "/home"},
        extra_host_config={"pids_limit": 50, "init": True},
    )
    ip, port = await spawner.start()
    assert await spawner.poll() is None
    for _ in range(50):
        try:
            assert await asyncio.to_thread(read, f"http://{ip}:{port}/") == b"served\n"
            break
        except OSError:
            await asyncio.sleep(0.1)
    else:
        sys.exit("the server does not answer")
    await spawner.stop(now=True)
    assert await spawner.poll() is not None
    for _ in range(50):  # the engine may remove a stopped container later
        if await spawner.get_object() is None:
            return
        await asyncio.sleep(0.1)
    sys.exit("the container still exists")


asyncio.run(main())
