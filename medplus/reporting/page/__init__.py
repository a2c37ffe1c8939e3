"""The report as one self-contained page."""

from medplus.reporting.page.links import PageLinks
from medplus.reporting.page.render import page_template, render_page, render_sections

__all__ = ["PageLinks", "page_template", "render_page", "render_sections"]
