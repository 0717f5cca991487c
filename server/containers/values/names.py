"""Container names: what is allowed, and an invented one for a container that was given none.

An invented name is ``adjective_surname`` as clients know it from dockerd (``docker ps`` columns, tests and
scripts rely on the shape, not on the words); the words below are our own choice. After a clash a digit is
appended, after six clashes the short id is taken.
"""

import re
import secrets
from collections.abc import Callable

from engine.common.errors import invalid

ALLOWED = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_PATTERN = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_ATTEMPTS = 6

# One text each, not a list of literals: a tenth of the lines.
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


def canonical(name: str) -> str:
    """``name`` without its optional leading slash, checked.

    :raises WharfError: INVALID_ARGUMENT with dockerd's sentence.
    """
    bare = name.removeprefix("/")
    if _PATTERN.fullmatch(bare) is None:
        raise invalid(f"Invalid container name ({name}), only {ALLOWED} are allowed")
    return bare


def invent(container_id: str, taken: Callable[[str], bool]) -> str:
    """A free name for the container; ``taken`` says whether one is in use."""
    for attempt in range(_ATTEMPTS):
        name = f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_SURNAMES)}"
        if attempt:
            name += str(secrets.randbelow(10))
        if not taken(name):
            return name
    return container_id[:12]


def in_use(name: str, holder: str) -> str:
    """dockerd's sentence for a name that another container has; clients search it for the holder's id."""
    return (
        f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
