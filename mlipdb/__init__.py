"""A database for machine-learned interatomic potentials.

    db = mlipdb.open("mlipdb-data")
    db.structure(1); db.labels(1); db.query("Y AND gap >= 5")

Public names are listed here; everything else may move.
"""

from mlipdb.database import Database as Database
from mlipdb.database import create_database as create
from mlipdb.database import open_database as open
from mlipdb.errors import MlipdbError as MlipdbError
from mlipdb.labels import Label as Label
from mlipdb.labels import Method as Method
from mlipdb.records import Entry as Entry
from mlipdb.records import NewLabel as NewLabel
from mlipdb.records import NewStructure as NewStructure
from mlipdb.selection import Selection as Selection
from mlipdb.structures import Structure as Structure
from mlipdb.version import __version__ as __version__

__all__ = ["create", "open"]
