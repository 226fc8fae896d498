"""Say below every page with what the book was made."""

import re
from pathlib import Path

import bnlib


def versions(root):
    """Return the version of the library, and those of what ran the chapters, as the lock says."""
    lock = root / "requirements.lock"
    if not lock.is_file():
        return {}  # a book on its own, as the tests build them
    pins = dict(re.findall(r"(?m)^([\w-]+)==(\S+)", lock.read_text()))
    return {
        "bnlib": bnlib.__version__,
        "TensorFlow": pins["tensorflow"],
        "Keras": pins["keras"],
    }


def add_versions(app, pagename, templatename, context, doctree):
    """Put the versions below every page, with the way to what changed."""
    if found := versions(Path(app.srcdir).parent):
        library = f"bnlib {found['bnlib']}"
        if "changelog" in app.env.all_docs:
            library = f'<a href="{context["pathto"]("changelog")}">{library}</a>'
        context["theme_extra_footer"] = (
            f"<p>{library}. The chapters were executed with "
            f"TensorFlow {found['TensorFlow']} and Keras {found['Keras']}.</p>"
        )


def setup(app):
    app.connect("html-page-context", add_versions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
