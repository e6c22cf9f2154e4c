"""Made structures: changed copies of stored ones, dimers, trimers, random crystals; all without labels."""

from mlipdb.generate.making import KINDS as KINDS
from mlipdb.generate.making import Making as Making
from mlipdb.generate.store import Generated as Generated
from mlipdb.generate.store import generate as generate
