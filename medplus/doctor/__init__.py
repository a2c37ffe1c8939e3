"""What is wrong with an installation, its data, stores and runs; nothing is mended unasked."""

from medplus.doctor.examination import examine
from medplus.doctor.finding import Finding, Places

__all__ = ["Finding", "Places", "examine"]
