"""Out of the database again: one file a format, and bundles that another database takes in."""

from mlipdb.export.bundle_make import BundleReport as BundleReport
from mlipdb.export.bundle_make import make_bundle as make_bundle
from mlipdb.export.bundle_take import TakeReport as TakeReport
from mlipdb.export.bundle_take import open_bundle as open_bundle
from mlipdb.export.bundle_take import take_bundle as take_bundle
from mlipdb.export.driver import export as export
from mlipdb.export.driver import make_exporter as make_exporter
from mlipdb.export.exporter import GROUP as GROUP
from mlipdb.export.exporter import Exporter as Exporter
from mlipdb.export.exporter import ExportItem as ExportItem
from mlipdb.export.exporter import ExportMethod as ExportMethod
from mlipdb.export.exporter import ExportOptions as ExportOptions
from mlipdb.export.exporter import ExportReport as ExportReport
