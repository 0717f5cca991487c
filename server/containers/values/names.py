"""Container names: their syntax, and generated names for containers that are created without one.

A generated name is ``adjective_surname``: clients of dockerd (``docker ps`` columns, tests, scripts) rely on this form,
not on the words, which are our own. If a name is in use, the next one has a digit appended; after six attempts the name
is the container's short id.
"""

import re
import secrets
from collections.abc import Callable

from engine.common.errors import invalid

#: The syntax in dockerd's sentences.
ALLOWED = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_PATTERN = re.compile(ALLOWED + "+")
_ATTEMPTS = 6

# Each list is one text: as literals it would take ten times as many lines.
_ADJECTIVES_TEXT = (
    "agile amber ample apt ardent astute balmy blithe bold brave bright brisk calm candid cheery civil clear "
    "clever cosy crisp daring deft dewy eager earnest easy elated fair fleet fluent fond frank fresh frosty "
    "gentle glad golden grand hardy hazel hearty honest humble ideal jaunty jolly jovial keen kind lively "
    "loyal lucid lunar mellow merry mighty mild modest neat nimble noble patient placid plucky polite prime "
    "proud quick quiet rapid ready regal robust rosy serene sharp shiny sincere sleek smart snug sober solar "
    "sound spry stable steady stoic sturdy sunny sure swift tender thrifty tidy tranquil trusty upbeat valiant "
    "vivid warm watchful whole witty worthy zesty"
)
_SURNAMES_TEXT = (
    "abel agnesi alhazen ampere anning archimedes babbage banach bardeen bassi bernoulli bohr boole born bose "
    "boyle brahe carson cauchy cavendish celsius chandrasekhar chern clarke copernicus coulomb curie dalton "
    "darwin descartes dijkstra dirac doppler einstein engelbart euclid euler faraday fermat fermi feynman "
    "fibonacci fleming fourier franklin galileo galois gauss germain goodall hamilton hawking heaviside "
    "heisenberg hertz hilbert hodgkin hopper hubble huygens hypatia jacobi jennings johnson joule kelvin kepler "
    "khayyam knuth kovalevskaya lagrange laplace lavoisier leavitt leibniz linnaeus lorentz lovelace maxwell "
    "mayer mccarthy meitner mendel mendeleev mirzakhani morse nash neumann newton nobel noether ohm pascal "
    "pasteur pauling planck poincare ptolemy ramanujan riemann ritchie rubin rutherford sagan schrodinger "
    "shannon somerville tesla thales thompson torvalds turing volta watt weierstrass wiles wing wozniak wright "
    "wu yalow yonath"
)
_ADJECTIVES = _ADJECTIVES_TEXT.split()
_SURNAMES = _SURNAMES_TEXT.split()


def is_valid(name: str) -> bool:
    """Whether ``name``, without leading slash, is a valid name of a container or a checkpoint."""
    return _PATTERN.fullmatch(name) is not None


def canonical(name: str) -> str:
    """``name`` without its optional leading slash.

    :raises WharfError: INVALID_ARGUMENT, with dockerd's sentence: a malformed name.
    """
    bare = name.removeprefix("/")
    if not is_valid(bare):
        raise invalid(f"Invalid container name ({name}), only {ALLOWED} are allowed")
    return bare


def generate(container_id: str, is_used: Callable[[str], bool]) -> str:
    """Generates a name for which ``is_used`` is false."""
    for attempt in range(_ATTEMPTS):
        name = f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_SURNAMES)}"
        if attempt:
            name += str(secrets.randbelow(10))
        if not is_used(name):
            return name
    return container_id[:12]


def in_use(name: str, container_id: str) -> str:
    """dockerd's sentence for a name that the container ``container_id`` has; clients search it for the id."""
    return (
        f'Conflict. The container name "/{name}" is already in use by container "{container_id}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
