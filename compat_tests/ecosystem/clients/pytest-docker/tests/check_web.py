import urllib.request


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.read() == b"served\n"
    except OSError:
        return False


def test_web(docker_ip: str, docker_services) -> None:
    url = f"http://{docker_ip}:{docker_services.port_for('web', 8080)}/"
    docker_services.wait_until_responsive(timeout=20, pause=0.1, check=lambda: answers(url))
